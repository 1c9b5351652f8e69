"""Matrices over channels that a reshape has split, back on one axis, are one matrix over these.

    Q ∘ B ∘ P = A          A[o, c] = what B makes, at o, of a one at c

    x ─▶ view (b, l, n, i) ─▶ einsum "blni,nio->blno" ─▶ view (b, l, n·o)          x ─▶ linear

All channels and all other axes of x have a layout in common, in which the latter are told by strides of their
own. A contraction may only act along axes of channels. Where in the end every other axis is where it was and
the channels are alone on theirs, each position of the result is one linear function of that position of x,
and its matrix is what the contractions make of the channels one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from reparamkit.algebra import AffineMap, Geometry, Numbers, Scalar, ScalarMap, geometry
from reparamkit.algebra.layout import Digit, Layout, Size
from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.operators import Affine, Contraction, Meaning, Move, Term, Value

_LONGEST = 12  # steps from the source; every one of them looks up its chain, and networks may be long
_POSITION = 1 << 40
"""Strides from here on tell positions along the axes of a value that are not its channels'."""

Step = Move | Contraction | Term
"""What makes one value from another: a move, a contraction, or a factor that is the same everywhere."""


def contractions_of_channels(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The matrix, for the nearest value above all contractions that the result is one of."""
    steps: list[Step] = []
    covers: list[int] = []
    meaning: Meaning | None = definition.meaning
    while len(steps) < _LONGEST and (step := _step(meaning)) is not None:
        steps.insert(0, step)
        above = graph[step.value.id]
        meaning = above.meaning
        if not isinstance(_step(meaning), Contraction) and any(isinstance(s, Contraction) for s in steps):
            term = _matrix(step.value, steps, definition.value)
            if term is not None:
                return (Alternative(term, tuple(sorted(covers))),)
        covers.append(above.id)
    return ()


def _step(meaning: Meaning | None) -> Step | None:
    if isinstance(meaning, Move | Contraction):
        return meaning
    if not isinstance(meaning, Affine) or len(meaning.terms) != 1:
        return None
    (term,) = meaning.terms
    return term if isinstance(term.structure, Scalar) and not term.structure.has_bias else None


def _matrix(source: Value, steps: Sequence[Step], result: Value) -> Term | None:
    """The matrix over an axis of the source that the steps come to; None if they come to none."""
    for axis in range(max(source.ndim - 4, 0), source.ndim) if result.ndim == source.ndim else ():
        dims = source.ndim - 1 - axis
        channels, outputs = source.sizes[axis], result.sizes[axis]
        if source.sizes != (*result.sizes[:axis], channels, *result.sizes[axis + 1 :]):
            continue
        if not isinstance(channels, int) or not isinstance(outputs, int) or min(channels, outputs) == 1:
            continue
        if (dims and source.ndim != dims + 2) or (axis == 0 and source.ndim > 1):
            continue
        layouts = _carried(_layout(source.sizes, axis), steps)
        if layouts is None or _numbered(layouts[-1]) != _layout(result.sizes, axis):
            continue
        structure = geometry.pointwise(channels, outputs, 1, dims, has_bias=False)
        return Term(source, structure, partial(_computed, structure, layouts, steps))
    return None


def _layout(sizes: Sequence[Size], axis: int) -> Layout:
    """Channels along one axis, positions along all others."""
    strides = [1 if a == axis else _POSITION + a for a in range(len(sizes))]
    return Layout(tuple((Digit(n, s),) if n != 1 else () for n, s in zip(sizes, strides, strict=True)))


def _carried(layout: Layout, steps: Sequence[Step]) -> list[Layout] | None:
    """The layout before the first step and behind each; channels are numbered anew behind contractions."""
    layouts = [layout]
    for step in steps:
        here: Layout | None = layouts[-1]
        if isinstance(step, Contraction):
            here = _contracted(layouts[-1], step)
        elif isinstance(step, Move):
            here = step.carry(layouts[-1])
        if here is None or here.first >= _POSITION:
            return None
        if any(digit.stride == 0 for axis in here.axes for digit in axis):
            return None  # repeated: a contraction may count it more than once
        layouts.append(here)
    return layouts


def _contracted(layout: Layout, step: Contraction) -> Layout:
    """The layout behind a contraction. Positions that it acts along are used up: no result has them."""
    axes = [
        layout.axes[place] if place is not None else ((Digit(size, 1),) if size != 1 else ())
        for place, size in zip(step.places, step.sizes, strict=True)
    ]
    return _numbered(Layout(tuple(axes)))


def _numbered(layout: Layout) -> Layout:
    """The same with its channels in the order in which they lie."""
    stride, axes = 1, list[tuple[Digit, ...]]()
    for axis in reversed(layout.axes):
        digits: list[Digit] = []
        for digit in reversed(axis):
            if digit.stride >= _POSITION:
                digits.insert(0, digit)
                continue
            assert isinstance(digit.size, int)
            digits.insert(0, Digit(digit.size, stride))
            stride *= digit.size
        axes.insert(0, tuple(digits))
    merged = [axis if len(axis) < 2 or not _is_channels(axis) else _whole(axis) for axis in axes]
    return Layout(tuple(merged))


def _is_channels(axis: Sequence[Digit]) -> bool:
    return all(digit.stride < _POSITION for digit in axis)


def _whole(axis: Sequence[Digit]) -> tuple[Digit, ...]:
    return (Digit(math.prod(digit.size for digit in axis if isinstance(digit.size, int)), axis[-1].stride),)


def _computed(structure: Geometry, layouts: Sequence[Layout], steps: Sequence[Step]) -> Numbers:
    """What the steps make of every channel of the source, one at a time."""
    numbers = torch.eye(structure.inputs, dtype=torch.float64)  # (channels of the source, channels here)
    for before, step in zip(layouts, steps, strict=False):
        if isinstance(step, Contraction):
            numbers = step.apply(numbers[:, _channels(before)]).flatten(1)
        elif isinstance(step, Term):
            factor = step.load()
            assert isinstance(factor, ScalarMap)
            numbers = numbers * factor.alpha
    kernel = numbers[:, _channels(layouts[-1]).flatten()].t()
    return AffineMap(structure, kernel.reshape(*kernel.shape, *structure.window), None)


def _channels(layout: Layout) -> Tensor:
    """The channel at every place, with one place for all positions."""
    axes = tuple(tuple(digit for digit in axis if digit.stride < _POSITION) for axis in layout.axes)
    return Layout(axes, layout.first).channels()
