"""Random networks, mostly affine, written as lines of Python so that a failure prints its own reproduction.

    net = draw_net(draw)         hypothesis' `draw` chooses every operator and attribute
    print(net.source)            the modules and the lines of its forward

Values are kept at the size of 1, and every value that nothing reads is an output, so that no mistake hides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import strategies as st
from torch import Tensor, nn

from tests.engine.random_maps import Maps
from tests.engine.random_net import Draw, RandomNet


class _Builder(Maps):
    """Lines of any layout."""

    def by_size(self, v: str) -> str:
        """What it computes, or how large its result is, depends on a size in a way of Python's."""
        dims = self.layout[v]
        form = self.pick(
            [
                "{v} * (2 if {v}.shape[2] > {k} else 1)",
                "{v} * (0.5 if {v}.shape[-1] % {k} == 0 else 1)",
                "{v} * (int({v}.shape[-1] * 1.5) * 0.1)",
                "{v} * (round({v}.shape[2] / 3) * 0.3)",
                "{v} / max({v}.shape[2], {v}.shape[-1], {k})",
                "{v}[..., : {v}.shape[-1] // 2 + 1]",
                "{v}[:, :, ({v}.shape[2] - 1) // 2 :]",
                "F.pad({v}, (0, -{v}.shape[-1] % 4))",
                "F.interpolate({v}, size=[math.ceil(n / 2) + 1 for n in {v}.shape[2:]])",
                "F.interpolate({v}, size=[max(n // 2, 3) for n in {v}.shape[2:]])",
                "F.interpolate({v}, size=[int(n * 1.5) for n in {v}.shape[2:]])",
                f"F.adaptive_avg_pool{dims}d({{v}}, [min(n, {{k}}) for n in {{v}}.shape[2:]])",
            ]
        )
        return self.line(form.format(v=v, k=self.int(2, 9)), v, dims=dims)

    def bordered(self, v: str) -> str:
        """A border of zeros, of anything, or of what a norm made of zero, and a window that meets it."""
        dims, channels = self.layout[v], self.shape(v)[1]
        near, far = ([self.int(0, 2) for _ in range(dims)] for _ in range(2))
        ones = ", ".join("1" * dims)
        shift, kind = self.tensor(channels), self.int(0, 4)
        if kind > 1:
            v = self.line(f"{v} * {self.factor()} + {shift}.view(-1, {ones})", v, dims=dims)
        fill = f"{v}.new_zeros(1, {channels}, {ones})" if kind == 0 else f"{shift}.view(1, -1, {ones})"
        how = self.pick(["side_by_side", "row_by_row", "canvas", "empty_canvas", "concatenated"])
        z = self.line(f"spelt.{how}({v}, {fill}, {near}, {far})", v, dims=dims)
        if self.int(0, 4) == 0:
            z = self.line(f"F.pad({v}, {(1, 1) * dims}, value={self.factor()})", v, dims=dims)
        return self.conv(z, padding=0) if self.coin() else z

    def buffered(self, v: str) -> str:
        """Two values written into one tensor."""
        others = [o for o in self.values(self.layout[v]) if self.shape(o)[2:] == self.shape(v)[2:]]
        return self.line(f"spelt.buffer({v}, {self.pick(others)})", v, dims=self.layout[v])

    def tail(self, v: str) -> str:
        dims = self.layout[v]
        form = self.pick(
            [f"{v}.mean({tuple(range(2, 2 + dims))})", f"F.adaptive_avg_pool{dims}d({v}, 1).flatten(1)"]
        )
        return self.vector(self.line(form, v, dims=0))

    def vector(self, v: str) -> str:
        if self.layout[v] != 0:
            return v
        for _ in range(self.int(0, 3)):
            kind = self.int(0, 3)
            if kind == 0:
                layer = nn.Linear(self.shape(v)[1], self.int(1, 5), bias=self.coin())
                v = self.line(f"{self.module(layer)}({v})", v, dims=0)
            elif kind == 1:
                v = self.norm(v)
            elif kind == 2:
                v = self.arithmetic(v)
            else:
                v = self.nothing(v)
        return v

    def channels_last(self, v: str) -> str:
        dims = self.layout[v]
        spatial = tuple(range(2, 2 + dims))
        v = self.line(f"{v}.permute(0, {', '.join(map(str, spatial))}, 1)", v, dims=-1)
        v = self.last_axis(v)
        if self.coin():
            return v
        back = (0, dims + 1, *range(1, dims + 1))
        return self.line(f"{v}.permute{back}", v, dims=dims) if self.layout[v] == -1 else v

    def tokens(self, v: str) -> str:
        dims = self.layout[v]
        shape = self.shape(v)
        v = self.line(f"{v}.flatten(2).transpose(1, 2)", v, dims=-1)
        v = self.last_axis(v)
        if self.layout[v] != -1 or self.coin():
            return v
        channels = self.shape(v)[-1]
        sides = ", ".join(map(str, shape[2:]))
        return self.line(f"{v}.transpose(1, 2).reshape({v}.shape[0], {channels}, {sides})", v, dims=dims)

    def attention(self, v: str) -> str:
        """Three pieces of a linear layer's output, a factor here or there."""
        channels, size = self.shape(v)[-1], self.int(1, 4)
        layer = self.module(nn.Linear(channels, 3 * size, bias=self.coin()))
        whole = self.line(f"{layer}({v})", v, dims=-1)
        if whole == v or len(self.shape(whole)) != 3:
            return v
        cut = self.pick(
            [
                f"{whole}.chunk(3, -1)",
                f"{whole}.reshape({whole}.shape[0], -1, 3, {size}).permute(2, 0, 1, 3).unbind(0)",
                f"{whole}.view({whole}.shape[0], -1, {size}, 3).unbind(3)",
            ]
        )
        name = f"v{len(self.net.lines)}"
        self.env[name] = self.net.run(cut, self.env)
        self.net.lines.append((name, cut))
        self.read.update((whole, name))
        q, k, w = (self.line(f"{name}[{i}]", whole, dims=-1) for i in range(3))
        if self.coin():
            q = self.line(f"{q} * {self.factor()}", q, dims=-1)
        if self.coin():
            k = self.line(f"{k} + {self.tensor(size)}", k, dims=-1)
        product = self.pick(
            [
                f"{q} @ {k}.transpose(-2, -1)",
                f"torch.bmm({q}, {k}.mT)",
                f"torch.einsum('bic,bjc->bij', {q}, {k})",
                f"torch.baddbmm({q}.new_zeros(1, 1, 1), {q}, {k}.mT, beta=0, alpha=0.5)",
            ]
        )
        scores = self.line(product, q, k, dims=-1)
        if self.coin():
            scores = self.line(f"{scores} / {abs(self.factor())}", scores, dims=-1)
        return self.line(f"{scores}.softmax(-1) @ {w}", scores, w, dims=-1)

    def last_axis(self, v: str) -> str:
        if self.int(0, 3) == 0:
            v = self.attention(v)
        for _ in range(self.int(1, 4)):
            kind, channels = self.int(0, 11), self.shape(v)[-1]
            if kind <= 1:
                layer = nn.Linear(channels, self.int(1, 5), bias=self.coin())
                v = self.line(f"{self.module(layer)}({v})", v, dims=-1)
            elif kind == 2:
                form = self.pick(["{v} * {c}", "{v} + {c}", "{c} - {v}", "{v} / {c}"])
                v = self.line(form.format(v=v, c=self.tensor(channels)), v, dims=-1)
            elif kind == 3:
                norm = self.module(nn.BatchNorm1d(channels))
                back = self.pick([f"reshape({v}.shape)", f"reshape_as({v})", f"view_as({v})"])
                v = self.line(f"{norm}({v}.flatten(0, -2)).{back}", v, dims=-1)
            elif kind == 4:
                norm = self.pick([nn.LayerNorm, nn.RMSNorm])(channels)
                forms = ["F.relu({v})", "F.layer_norm({v}, ({c},))", "{norm}({v})", "{norm}({v})"]
                form = self.pick(forms)
                name = self.module(norm) if "norm}" in form else ""
                v = self.line(form.format(v=v, c=channels, norm=name), v, dims=-1)
            elif kind == 5:
                v = self.line(f"{v} + {v} * {self.factor()}", v, dims=-1)
            elif kind == 6:
                matrix = self.tensor(channels, self.int(1, 4))
                v = self.line(f"{v} @ {matrix}", v, dims=-1)
            elif kind == 7:
                matrix = self.tensor(self.int(1, 4), channels)
                v = self.line(f"torch.einsum('...c,oc->...o', {v}, {matrix})", v, dims=-1)
            elif kind <= 9:
                v = self.beside_views(v)
            else:
                v = self.in_groups(v)
        return v

    def in_groups(self, v: str) -> str:
        """Matrices that differ from group to group, of channels or of more than those; sums over groups."""
        shape = self.shape(v)
        channels = shape[-1]
        groups = self.pick([n for n in range(1, channels + 1) if channels % n == 0])
        size, outputs = channels // groups, self.int(1, 3)
        split = self.pick(
            [f"{v}.unflatten(-1, ({groups}, {size}))", f"({v}.unflatten(-1, ({groups}, -1)) * 0.5)"]
        )
        blocks, factors = self.tensor(groups, size, outputs), self.tensor(groups, size)
        rows = self.tensor(shape[-2], channels, outputs)
        mixed = f"torch.einsum('...gi,gio->...go', {split}, {blocks})"
        forms = [
            f"{mixed}.flatten(-2)",
            f"{mixed}.transpose(-1, -2).flatten(-2)",
            f"torch.einsum('...gi,gio->...og', {split}, {blocks}).flatten(-2)",
            f"torch.einsum('...gi,gi->...g', {split}, {factors})",
            f"torch.einsum('...gi,gi->...i', {split}, {factors})",
            f"({split}.unsqueeze(-2) @ {blocks}).flatten(-3)",
            f"{split}.sum(-2)",
            f"{split}.sum(-1) * 0.5",
            f"{split}.select(-2, -1).sum(-1, keepdim=True)",
            f"{split}.transpose(-1, -2)[..., 0].flatten(-1)",
            f"torch.einsum('...ni,nio->...no', {v}, {rows})",
            f"{v}.sum(-2, keepdim=True)",
        ]
        there = self.line(self.pick(forms), v, dims=-1)
        if there == v or self.shape(there)[:-1] != shape[:-1] or self.coin():
            return there
        layer = self.module(nn.Linear(channels, self.shape(there)[-1], bias=self.coin()))
        return self.line(f"{layer}({v}) + {there} * {self.factor()}", v, there, dims=-1)

    def beside_views(self, v: str) -> str:
        """Layers of all tokens in a row, or of axes in another order, beside one of the value itself."""
        channels, outputs = self.shape(v)[-1], self.int(1, 4)
        matrix, bias = self.tensor(channels, outputs), self.tensor(outputs)
        layer = self.module(nn.Linear(channels, outputs, bias=self.coin()))
        forms = [
            f"torch.addmm({bias}, {v}.reshape(-1, {channels}), {matrix}).view(*{v}.shape[:-1], {outputs})",
            f"({v}.flatten(0, -2) @ {matrix}).unflatten(0, {v}.shape[:-1])",
            f"({v}.flatten(0, -2) @ {matrix} + {layer}({v}).flatten(0, -2)).view(*{v}.shape[:-1], {outputs})",
            f"{layer}({v}.transpose(0, 1)).transpose(0, 1)",
            f"{layer}({v}.transpose(0, 1)).transpose(1, 0) * {bias}",
        ]
        there = self.line(self.pick(forms), v, dims=-1)
        beside = self.line(f"{layer}({v})", v, dims=-1)
        if self.shape(there) != self.shape(beside) or there == v:
            return there
        return self.line(f"{there} + {beside} * {self.factor()}", there, beside, dims=-1)

    def looked_up(self, v: str) -> str:
        """Tables of embeddings, at places that the input gives."""
        rows, size = self.int(1, 6), self.int(1, 4)
        axis = "x.flatten(2)[:, 0]"
        places = self.line(f"({axis} * 3).long().abs() % {rows}", "x", dims=-2)
        tables = [self.module(nn.Embedding(rows, size)) for _ in range(2)]
        lora = f"F.embedding({places}, {self.tensor(2, rows)}.t()) @ {self.tensor(2, size)}"
        forms = [f"{tables[0]}({places})", f"{tables[0]}({places}) * 0.5 - {tables[1]}({places})"]
        forms += [
            f"{tables[0]}({places}) + {lora}",
            f"torch.cat([{tables[0]}({places}), {tables[1]}({places})], -1)",
        ]
        found = self.line(self.pick(forms), places, dims=-1)
        return self.last_axis(found) if found != places else v


_STEPS: list[tuple[int, Callable[[_Builder, str], str]]] = [
    (6, _Builder.conv),
    (2, _Builder.transposed),
    (2, _Builder.upsampled),
    (4, _Builder.branches),
    (4, _Builder.norm),
    (4, _Builder.arithmetic),
    (4, _Builder.pair),
    (2, _Builder.padded),
    (2, _Builder.cropped),
    (3, _Builder.bordered),
    (1, _Builder.buffered),
    (2, _Builder.pooled),
    (2, _Builder.nothing),
    (2, _Builder.gate),
    (2, _Builder.concatenated),
    (2, _Builder.written),
    (1, _Builder.again),
    (1, _Builder.standardised),
    (1, _Builder.split),
    (2, _Builder.pieces),
    (1, _Builder.resized),
    (2, _Builder.by_size),
    (1, _Builder.computed),
    (1, _Builder.channels_last),
    (1, _Builder.tokens),
    (2, _Builder.surrounded),
    (1, _Builder.multiplied),
    (1, _Builder.with_zeros),
    (1, _Builder.looked_up),
    (1, _Builder.tail),
]


@st.composite
def nets(draw: Draw, most: int = 10) -> tuple[RandomNet, Tensor]:
    """A network of up to `most` steps in float64, and the input it was drawn with."""
    builder = _Builder(draw)
    steps = [step for weight, step in _STEPS for _ in range(weight)]
    for _ in range(builder.int(1, most)):
        v = builder.pick([n for n in builder.values() if builder.layout[n] > 0])
        builder.pick(steps)(builder, v)
    net = builder.net
    if not net.lines:
        builder.line("x * 1.5", "x", dims=builder.layout["x"])
    net.outputs = [name for name, _ in net.lines if name not in builder.read]
    if len(net.outputs) > 1 and builder.int(0, 4) == 0:
        net.outputs.pop(0)  # a branch that nothing reads
    if builder.int(0, 3) == 0:
        net.outputs.append(builder.pick([name for name, _ in net.lines]))
    return net.eval(), builder.example


def noise_floor(value: Tensor) -> float:
    """What an error is relative to: the largest value, or 1e-5 where terms of size 1 cancelled."""
    return max(value.abs().max().item(), 1e-5) if value.numel() else math.inf
