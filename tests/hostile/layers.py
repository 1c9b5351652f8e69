"""More layers that fold, behind and around what is hostile: side by side, on pieces, on scaled channels."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


def _layer(w: Writer, ins: int = 4, outs: int = 4) -> str:
    d = w.rank - 2
    kernel = w.pick(["1", "3, padding=1", "3, padding=1"])
    groups = ", groups=2" if ins == outs == 4 and w.chance(0.2) else ""
    return f"nn.Conv{d}d({ins}, {outs}, {kernel}{groups})"


@idea("layers", 8)
def more_layers(w: Writer) -> Lines:
    """On y as (N, 4, *spatial)."""
    if not w.ncs or w.rank < 3:
        return None
    a, b, n, k, g = (w.name(stem) for stem in "cdnkg")
    d = w.rank - 2
    init = {
        a: f"self.{a} = {_layer(w)}",
        b: f"self.{b} = {_layer(w)}",
        n: f"self.{n} = nn.BatchNorm{d}d(4)",
        k: f"self.{k} = nn.BatchNorm{d}d(4)",
        g: f"self.{g} = nn.Parameter(torch.ones(4, {', '.join(['1'] * d)}))",
    }
    pool, sides, ones = f"F.avg_pool{d}d", tuple(range(2, w.rank)), ", ".join(["1"] * d)
    body = w.pick(
        [
            [f"y = self.{n}(self.{a}(y))"],
            [f"y = self.{n}(self.{a}(y)) + self.{k}(self.{b}(y)) + y"],
            [f"y = self.{a}(self.{n}(y))"],
            [f"y = self.{a}(y) * self.{g} + y"],
            [f"y = torch.cat([self.{n}(self.{a}(y)), self.{k}(self.{b}(y))], 1)[:, ::2]"],
            [f"y = self.{n}(self.{a}(y)).relu() + self.{k}(self.{b}(y)).tanh()"],
            [f"p, q = self.{n}(self.{a}(y)).chunk(2, 1)", "y = torch.cat([q, p.relu()], 1)"],
            [f"t = self.{a}(y)", f"y = torch.cat([t[:, 2:], t[:, :2]], 1) + self.{n}(y)"],
            [f"y = {pool}(self.{n}(self.{a}(y)), 3, 1, 1)"],
            [f"y = self.{n}({pool}(y, 2)) + {pool}(self.{a}(y), 2)"],
            [f"y = self.{n}(y) - y.mean({sides}, keepdim=True)"],
            [f"y = self.{n}(y) * self.{a}(y).mean({sides}, keepdim=True).sigmoid()"],
            [f"y = y * torch.tensor([1e3, 1.0, 1e-3, 1.0], dtype=y.dtype).reshape(4, {ones})"],
            [f"t = self.{n}(self.{a}(y))", f"y = t + self.{k}(t[:, :, {', '.join([':1'] * d)}])"],
        ]
    )
    return body, [line for name, line in init.items() if f"self.{name}" in "".join(body)]


@idea("layers", 1)
def linear_on_tokens(w: Writer) -> Lines:
    """On whatever ends in an axis of a known size."""
    if w.rank < 2 or not w.y.is_floating_point():
        return None
    size = w.y.shape[-1]
    a, b, n = w.name("l"), w.name("l"), w.name("n")
    first, second = f"self.{a} = nn.Linear({size}, 4)", f"self.{b} = nn.Linear({size}, 4)"
    return w.pick(
        [
            ([f"y = self.{a}(y) + self.{b}(y)"], [first, second]),
            ([f"y = self.{a}(self.{n}(y))"], [first, f"self.{n} = nn.LayerNorm({size})"]),
            ([f"y = self.{a}(y) * 2 + self.{b}(y).relu()"], [first, second]),
        ]
    )


@idea("layers", 1)
def unbatched_layers(w: Writer) -> Lines:
    """Maps without a batch, whose first axis is the channels."""
    if w.rank not in (2, 3) or w.y.shape[0] != 4 or not w.y.is_floating_point():
        return None
    a, b, d = w.name("c"), w.name("d"), w.rank - 1
    init = [f"self.{a} = nn.Conv{d}d(4, 4, 1)", f"self.{b} = nn.Conv{d}d(4, 4, 3, padding=1)"]
    return w.pick(
        [
            ([f"y = self.{a}(y) + self.{b}(y)"], init),
            ([f"y = torch.cat([self.{a}(y), self.{b}(y)], 0)"], init),
            ([f"y = self.{a}(y) * self.{b}(y).sigmoid()"], init),
        ]
    )
