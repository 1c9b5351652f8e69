"""Tied weights, shared modules, computed weights, and parameters that decide."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


def layer(w: Writer, bias: bool = True) -> str | None:
    """A layer from four channels to four that keeps the size of y."""
    if not w.ncs:
        return None
    no_bias = "" if bias else ", bias=False"
    if w.rank == 2:
        return f"nn.Linear(4, 4{no_bias})"
    kernel = w.pick(["1", "3, padding=1"])
    return f"nn.Conv{w.rank - 2}d(4, 4, {kernel}{no_bias})"


def norm(w: Writer) -> str:
    return f"nn.BatchNorm{max(1, w.rank - 2)}d(4)"


@idea("state", 3)
def tied(w: Writer) -> Lines:
    made = layer(w)
    if made is None:
        return None
    a, b, n, k = w.name("c"), w.name("c"), w.name("b"), w.name("b")
    both = [f"self.{a} = {made}", f"self.{n} = {norm(w)}"]
    second = [f"self.{b} = {made}", f"self.{k} = {norm(w)}"]
    return w.pick(
        [
            ([f"y = self.{a}(self.{a}(y))"], both[:1]),
            ([f"y = self.{n}(self.{a}(y)) + self.{a}(y)"], both),
            ([f"y = self.{n}(self.{a}(y)).relu() + self.{n}(y)"], both),
            ([f"y = self.{n}(self.{a}(y)) + self.{k}(self.{a}(y))"], [*both, second[1]]),
            (
                [f"y = self.{n}(self.{a}(y)) + self.{k}(self.{b}(y))"],
                [*both, *second, f"self.{b}.weight = self.{a}.weight"],
            ),
            (
                [f"y = self.{n}(self.{a}(y)).tanh()", f"y = y + self.{b}(y)"],
                [*both, *second, f"self.{b}.weight = self.{a}.weight", f"self.{b}.bias = self.{a}.bias"],
            ),
            ([f"y = self.{n}(self.{a}(y))", f"y = y + self.{a}.weight.sum()"], both),
            ([f"y = self.{n}(self.{a}(y)) * self.{n}.running_var.mean()"], both),
            ([f"y = self.{n}(self.{a}(y))", f"y = y + self.{n}.weight[0]"], both),
            ([f"t = self.{a}(y)", f"y = self.{n}(t) + t.mean()"], both),
        ]
    )


@idea("state", 3)
def computed(w: Writer) -> Lines:
    """Weights that are computed from parameters at every call."""
    if not w.ncs or w.rank not in (2, 4):
        return None
    a, g, n = w.name("c"), w.name("g"), w.name("b")
    made = "nn.Conv2d(4, 4, 3, padding=1)" if w.rank == 4 else "nn.Linear(4, 4)"
    call, pad = ("F.conv2d", ", padding=1") if w.rank == 4 else ("F.linear", "")
    init = [f"self.{a} = {made}", f"self.{g} = nn.Parameter(torch.ones(1))", f"self.{n} = {norm(w)}"]
    weight, bias = f"self.{a}.weight", f"self.{a}.bias"
    return w.pick(
        [
            ([f"y = self.{n}({call}(y, {weight} * self.{g}, {bias}{pad}))"], init),
            ([f"y = {call}(y, {weight} - {weight}.mean(0, keepdim=True), {bias}{pad})"], init[:1]),
            ([f"y = {call}(y, F.normalize({weight}, dim=0), None{pad}) + self.{g}"], init),
            ([f"y = self.{a}(y) * self.{g} + y"], init),
            ([f"y = self.{n}(self.{a}(y))"], [parametrised(w, a, made), init[2]]),
            ([f"if self.{g}:", f"    y = y * self.{g}"], init),
            ([f"if float(self.{g}) > 0:", "    y = y + 1"], init),
            ([f"if self.{a}.bias is not None:", f"    y = self.{a}(y)"], init),
            ([f"y = y * self.{g}.item()"], init),
            ([f"y = y + len(self.{a}.weight)"], init),
            ([f"t = {weight}.detach().clone()", "t[0] = 0", f"y = {call}(y, t, {bias}{pad})"], init),
            ([f"t = {weight}[:, :2]", f"y = y + {call}(y[:, :2], t, {bias}{pad})"], init),
        ]
    )


def parametrised(w: Writer, name: str, made: str) -> str:
    wrapped = w.pick(
        ["parametrizations.weight_norm", "parametrizations.spectral_norm", "nn.utils.weight_norm"]
    )
    if wrapped == "nn.utils.weight_norm":
        wrapped = "parametrizations.weight_norm"
    return f"self.{name} = {wrapped}({made})"


@idea("state")
def views_of_buffers(w: Writer) -> Lines:
    a, b = w.name("v"), w.name("v")
    init = [f"self.register_buffer('{a}', torch.ones(8))", f"self.register_buffer('{b}', self.{a}[:4])"]
    return w.pick(
        [
            ([f"y = y * self.{b}.mean() + self.{a}.sum()"], init),
            ([f"self.{b}.add_(1)", f"y = y + self.{a}.sum()"], init),
            ([f"y = y + self.{a}.sum()"], [init[0], f"self.{b} = self.{a}"]),
        ]
    )


@idea("state")
def recurrent(w: Writer) -> Lines:
    kind = w.pick(["LSTM", "GRU", "RNN"])
    r = w.name("r")
    first = w.pick(["", ", batch_first=True"])
    init = [f"self.{r} = nn.{kind}(4, 4{first}{w.pick(['', ', bidirectional=True'])})"]
    if w.ncs and w.rank >= 3:
        return [f"y, t = self.{r}(y.flatten(2).permute({w.pick(['0, 2, 1', '2, 0, 1'])}))"], init
    if w.rank in (2, 3) and w.y.shape[-1] == 4:
        return [f"y, t = self.{r}(y)"], init
    return None


@idea("state")
def attention(w: Writer) -> Lines:
    if not w.ncs or w.rank < 3:
        return None
    a = w.name("a")
    tokens = "t = y.flatten(2).transpose(1, 2)"
    return w.pick(
        [
            (
                [tokens, f"y = self.{a}(t, t, t)[0]"],
                [f"self.{a} = nn.MultiheadAttention(4, 2, batch_first=True)"],
            ),
            ([tokens, "y = F.scaled_dot_product_attention(t, t, t)"], []),
            ([tokens, "y = F.scaled_dot_product_attention(t, t, t, is_causal=True)"], []),
            (
                [tokens, f"q, k, v = self.{a}(t).chunk(3, -1)", "y = (q @ k.mT / 2).softmax(-1) @ v"],
                [f"self.{a} = nn.Linear(4, 12)"],
            ),
            (
                [tokens, f"y = self.{a}(t)"],
                [f"self.{a} = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)"],
            ),
        ]
    )
