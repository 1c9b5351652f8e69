"""The sizes at which a region is proven: small ones, odd and even, at which every tap meets data.

Where a region only computes, one length along every axis of its result gives the sizes of its inputs. Where
it moves values as well, `reparamkit.engine.resizing` says what may vary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import Tensor

from reparamkit.algebra import AffineMap, Geometry, Scalar, Transposed
from reparamkit.engine.form import Form, Terms
from reparamkit.engine.graph import Node
from reparamkit.engine.host import Host
from reparamkit.engine.resizing import Resizing
from reparamkit.operators import Affine, Bordered, Contraction, Move, Opaque, Zero

_MOST = 1 << 24  # numbers of a table that is tried row by row


@dataclass(frozen=True)
class Trial:
    """The shapes of a region's inputs for one comparison.

    `captured` are the shapes of the capture; as a `last_resort` they are for what runs at no other size.
    """

    shapes: Mapping[int, tuple[int, ...]]
    captured: bool = False
    last_resort: bool = False
    resizing: Resizing | None = None
    numbers: Mapping[int, int] = field(default_factory=dict)

    def shape(self, step: int, values: Mapping[Any, Tensor]) -> tuple[int, ...] | None:
        """The shape of a step's result, where that differs from the captured one and is known by now."""
        return None if self.resizing is None else self.resizing.shape(step, self.numbers, values)


def trials(
    host: Host,
    form: Form,
    inside: Sequence[int],
    terms: Terms,
    inputs: Sequence[int],
    synthetic: Sequence[int],
) -> Iterator[Trial]:
    """What to try for a form: the operators `inside` are replaced, `synthetic` ones are kept.

    `inputs` is what both are computed from.
    """
    nodes = host.graph.nodes
    steps = (*synthetic, *inside)
    maps = [(s, m.structure) for s, m in terms.items() if isinstance(m, AffineMap)]
    moves = any(
        isinstance(nodes[i].meaning, Move | Contraction | Bordered | Zero)
        or nodes[i].covers
        or host.ends_at_fixed_place(i)
        for i in steps
    )
    if moves or not maps or any(isinstance(nodes[i].meaning, Opaque) for i in steps):
        yield from resized(host, inputs, steps, last_resort=not moves)
        return
    captured = {s: nodes[s].value.shape for s in inputs}
    tables = [(s, g.inputs) for s, g in maps if not nodes[s].value.dtype.is_floating_point]
    if tables:  # every row once, if the operators around them run on rows alone
        rows = max(rows for _, rows in tables)
        if len(tables) == len(inputs) and rows * nodes[form.node].value.shape[-1] <= _MOST:
            yield Trial({s: (rows,) for s, _ in tables})
        yield Trial(captured, captured=True, last_resort=True)
        return
    dims = {g.dims for _, g in maps}
    ndim = len(nodes[form.node].value.shape)
    if len(dims) == 1 and len({len(shape) for shape in captured.values()}) == 1:
        (d,) = dims
        looking = sum(not _same_everywhere(nodes[i]) for i in inside)
        lengths = _lengths(tuple(g for _, g in maps), d, looking)
        for batch, (outputs, slack) in zip((2, 1, 1), lengths, strict=False):
            shapes = {}
            for s in inputs:
                own = [g for source, g in maps if source == s]
                shape = [min(n, 2 + axis % 2) for axis, n in enumerate(captured[s])]
                shape[ndim - d - 1] = captured[s][ndim - d - 1]
                if ndim > d + 1:
                    shape[0] = batch + (d == 0 and captured[s][0] == batch)
                for axis in range(d):
                    shape[ndim - d + axis] = _length_in(own[0] if own else None, axis, outputs[axis], slack)
                shapes[s] = tuple(shape)
            if all(n > 0 for shape in shapes.values() for n in shape):
                yield Trial(shapes, captured=shapes == captured)
    yield Trial(captured, captured=True, last_resort=True)


def resized(
    host: Host,
    inputs: Sequence[int],
    steps: Sequence[int],
    held: Iterable[tuple[int, int]] = (),
    *,
    last_resort: bool = False,
) -> Iterator[Trial]:
    """Other sizes for a region that moves values, and the captured ones; `held` axes of inputs stay."""
    resizing = Resizing(host, inputs, steps, _filled, held)
    for parity in (1, 0):
        numbers = resizing.numbers(parity)
        if numbers is not None:
            shapes = {i: resizing.input_shape(i, numbers) for i in inputs}
            yield Trial(shapes, resizing=resizing, numbers=numbers)
    captured = {i: host.graph.nodes[i].value.shape for i in inputs}
    yield Trial(captured, captured=True, last_resort=last_resort)


def _filled(g: Geometry | Transposed, axis: int) -> int:
    """The shortest input at which every tap meets data."""
    return _length_in(g, axis, _needed(g, axis), slack=False)


def _same_everywhere(node: Node) -> bool:
    """Whether it does the same at every position, whatever lies around it: one size says all."""
    return isinstance(node.meaning, Affine) and all(
        isinstance(p.structure, Scalar) or (isinstance(p.structure, Geometry) and p.structure.pointwise)
        for p in node.meaning.terms
    )


def _length_in(g: Geometry | Transposed | None, axis: int, length_out: int, slack: bool) -> int:
    if isinstance(g, Geometry):
        return g.length_in(axis, length_out, slack * (g.stride[axis] - 1))
    return length_out if g is None else g.length_in(axis, length_out) or 0


@lru_cache(maxsize=4096)
def _lengths(
    maps: tuple[Geometry | Transposed, ...], d: int, looking: int
) -> list[tuple[tuple[int, ...], bool]]:
    """Output lengths per axis that all maps have in common, odd and even ones where there are both.

    Where there are two axes or more, odd and even lie on different axes of one size. `looking` operators see
    more than the position that they write. Where none does, that size says all, and where one does that
    skips nothing: what is folded into it does not move its window. Otherwise there is a second size, as
    small as can be. With each size, whether inputs are the shortest or the longest that give it. Transposed
    convolutions of different strides may have no length in common.
    """
    odd, even, one = [], [], []
    for axis in range(d):
        need, period = 1, 1
        for g in maps:
            need = max(need, _needed(g, axis))
            period = math.lcm(period, g.stride[axis] if isinstance(g, Transposed) else 1)
        common = [n for n in range(1, need + 2 * period) if all(_gives(g, axis, n) for g in maps)]
        large = sorted([n for n in common if n >= need][:2], key=lambda n: n % 2 == 0)
        if len(large) < 2:
            return []
        odd.append(large[0])
        even.append(large[1])
        one.append(common[0])
    mixed = [o if i % 2 == 0 else e for i, (o, e) in enumerate(zip(odd, even, strict=True))]
    if d == 1:
        return [(tuple(mixed), False), (tuple(even), True), (tuple(one), False)][: 3 if looking else 1]
    if not looking or (looking == 1 and all(s == 1 for g in maps for s in g.stride)):
        return [(tuple(mixed), False)]
    least = [n if i % 2 == 0 else o for i, (n, o) in enumerate(zip(one, odd, strict=True))]
    return [(tuple(mixed), False), (tuple(least), True)]


def _needed(g: Geometry | Transposed, axis: int) -> int:
    """The shortest output at which every tap meets data."""
    lo, span, extent, stride = g.lo[axis], g.span[axis], g.extent[axis], g.stride[axis]
    if isinstance(g, Transposed):
        inputs = math.ceil((span + max(-lo, 0) + max(lo + span - 1 - extent, 0)) / stride) + 1
        return stride * (inputs - 1) + 1 + extent
    return math.ceil((max(-lo, lo + span - 1, 1) + extent) / stride) + 1


def _gives(g: Geometry | Transposed, axis: int, length: int) -> bool:
    return isinstance(g, Geometry) or g.length_in(axis, length) is not None
