"""What each operator makes of the pictures of what it reads (`reparamkit.operators.pictures`).

A painter turns one `Call` into the picture of its result, or says that there is none:

    @painter("aten.zeros.default")
    def _zeros(call, known):
        return Picture.of(call.result.sizes, _number(0.0))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reparamkit.operators.base import Call, Constant, Value
from reparamkit.operators.pictures import END, Fill, Picture, Unclear, pasted, taken, with_axis

_MOST = 256  # cells


def picture(call: Call, known: Mapping[int, Picture]) -> Picture | None:
    """The picture of a call's result, by those of values before it; None for what no picture is made of."""
    painter = _PAINTERS.get(call.target)
    if painter is None:
        return None
    try:
        painted = painter(call, _Known(known))
    except Unclear:
        return None
    contents = painted.cells.values()
    if len(contents) > _MOST or painted.sizes != call.result.sizes:
        return None
    if any(isinstance(c, Value) and c.dtype != call.result.dtype for c in contents):
        return None  # writing into a tensor of another type rounds
    return painted


class _Known:
    """The pictures of what calls read."""

    def __init__(self, known: Mapping[int, Picture]) -> None:
        self._known = known

    def painted(self, argument: Any) -> Picture:
        """The picture of a value that has one."""
        if not isinstance(argument, Value) or argument.id not in self._known:
            raise Unclear
        return self._known[argument.id]

    def of(self, argument: Any, sizes: tuple[Any, ...] | None = None) -> Picture:
        """The picture of any argument; `sizes` are those that it is spread to."""
        if isinstance(argument, Constant):
            return Picture.of(argument.shape if sizes is None else sizes, _constant(argument, sizes))
        if isinstance(argument, bool | int | float):
            if sizes is None:
                raise Unclear
            return Picture.of(sizes, _number(argument))
        if not isinstance(argument, Value):
            raise Unclear
        whole = self._known.get(argument.id) or Picture.of(argument.sizes, argument)
        if sizes is None or sizes == argument.sizes:
            return whole
        fill = _only_fill(whole)
        if fill is None or whole.sizes[1:2] not in (sizes[1:2], (1,)) or len(whole.sizes) != len(sizes):
            raise Unclear
        return replace(Picture.of(sizes, fill), touched=whole.touched)


Painter = Callable[[Call, _Known], Picture]
_PAINTERS: dict[str, Painter] = {}


def painter(*targets: str) -> Callable[[Painter], Painter]:
    """Register a painter for the operators named."""

    def register(function: Painter) -> Painter:
        _PAINTERS.update(dict.fromkeys(targets, function))
        return function

    return register


@painter("aten.constant_pad_nd.default", "aten.pad.default")
def _pad(call: Call, known: _Known) -> Picture:
    amounts, filled = call.get("pad"), call.get("value") or 0.0
    if call.get("mode", "constant") != "constant" or not all(isinstance(a, int) and a >= 0 for a in amounts):
        raise Unclear
    inner, ndim = known.of(call.get("self")), call.result.ndim
    for i in range(len(amounts) // 2):
        near, far, axis = amounts[2 * i], amounts[2 * i + 1], ndim - 1 - i
        rim = Picture.of(with_axis(inner.sizes, axis, call.result.sizes[axis]), _number(filled))
        inner = pasted(rim, inner, axis, near, -far or END)
    return inner


@painter("aten.cat.default", "aten.concat.default")
def _cat(call: Call, known: _Known) -> Picture:
    pieces = [known.of(piece) for piece in call.get("tensors")]
    axis = call.result.axis(call.get("dim", 0))
    canvas = Picture.of(call.result.sizes, None)
    lengths = [piece.sizes[axis] for piece in pieces]
    if sum(not isinstance(length, int) for length in lengths) > 1:
        raise Unclear
    front = 0
    for i, piece in enumerate(pieces):
        behind = lengths[i + 1 :]
        start = front if all(isinstance(n, int) for n in lengths[:i]) else -sum(lengths[i:])
        if isinstance(lengths[i], int):
            end = start + lengths[i]
            end = END if end == 0 and start < 0 else end
        else:
            end = -sum(behind) or END
        front = front + lengths[i] if isinstance(lengths[i], int) else front
        canvas = pasted(canvas, piece, axis, start, end)
    return canvas


@painter("aten.slice.Tensor")
def _slice(call: Call, known: _Known) -> Picture:
    base = known.painted(call.get("self"))
    axis, start, end = _range(call, base)
    return taken(base, axis, start, end, call.result.sizes)


@painter("aten.select.int")
def _select(call: Call, known: _Known) -> Picture:
    base = known.painted(call.get("self"))
    return replace(Picture.of(call.result.sizes, None), touched=base.touched)


@painter("aten.slice_scatter.default")
def _slice_scatter(call: Call, known: _Known) -> Picture:
    base, source = known.of(call.get("self")), known.of(call.get("src"))
    return pasted(base, source, *_range(call, base))


@painter("aten.select_scatter.default")
def _select_scatter(call: Call, known: _Known) -> Picture:
    base, source = known.of(call.get("self")), known.of(call.get("src"))
    axis, index, fill = call.result.axis(call.get("dim")), call.get("index"), _only_fill(source)
    if fill is None or axis < 2 or not isinstance(index, int):
        raise Unclear
    row = Picture.of((*base.sizes[:axis], 1, *base.sizes[axis + 1 :]), fill)
    row = replace(row, touched=source.touched)
    return pasted(base, row, axis, index, END if index == -1 else index + 1)


@painter("aten.copy.default")
def _copy(call: Call, known: _Known) -> Picture:
    base, source = known.of(call.get("self")), known.of(call.get("src"), call.result.sizes)
    return replace(source, touched=source.touched | base.touched)


@painter("aten.fill.Scalar", "aten.fill.Tensor")
def _filled(call: Call, known: _Known) -> Picture:
    filled = known.of(call.get("value"), call.result.sizes)
    return replace(filled, touched=known.of(call.get("self")).touched)


@painter("aten.full.default", "aten.new_full.default", "aten.full_like.default")
def _full(call: Call, known: _Known) -> Picture:
    return known.of(call.get("fill_value"), call.result.sizes)


@painter("aten.zeros.default", "aten.new_zeros.default", "aten.zeros_like.default")
def _zeros(call: Call, known: _Known) -> Picture:
    return Picture.of(call.result.sizes, _number(0.0))


@painter("aten.ones.default", "aten.new_ones.default", "aten.ones_like.default")
def _ones(call: Call, known: _Known) -> Picture:
    return Picture.of(call.result.sizes, _number(1.0))


@painter("aten.empty.memory_format", "aten.new_empty.default", "aten.empty_like.default")
def _empty(call: Call, known: _Known) -> Picture:
    return Picture.of(call.result.sizes, None)


@painter("aten.expand.default")
def _expand(call: Call, known: _Known) -> Picture:
    return known.of(call.get("self"), call.result.sizes)


@painter("aten.repeat.default")
def _repeat(call: Call, known: _Known) -> Picture:
    if len(call.get("repeats")) < 2 or call.get("repeats")[1] != 1:
        raise Unclear
    return known.of(call.get("self"), call.result.sizes)


@painter("aten.clone.default", "aten.contiguous.default", "aten.alias.default")
def _same(call: Call, known: _Known) -> Picture:
    return known.painted(call.get("self"))


@painter("aten.add.Tensor", "aten.mul.Tensor")
def _arithmetic(call: Call, known: _Known) -> Picture:
    sides = [known.of(call.get(name), call.result.sizes) for name in ("self", "other")]
    left, right = (_only_fill(side) for side in sides)
    if left is None or right is None or call.get("alpha", 1) != 1:
        raise Unclear
    operation = torch.add if call.target.startswith("aten.add") else torch.mul
    a, b = left, right

    def load() -> Tensor | None:
        first, second = a.load(), b.load()
        return None if first is None or second is None else operation(first, second)

    return replace(Picture.of(call.result.sizes, Fill(load)), touched=sides[0].touched | sides[1].touched)


def _range(call: Call, base: Picture) -> tuple[int, int, int]:
    """Axis, start and end of a slice of step 1."""
    start, end = call.get("start"), call.get("end")
    start, end = 0 if start is None else start, END if end is None else end
    if call.get("step", 1) != 1 or not isinstance(start, int) or not isinstance(end, int):
        raise Unclear
    axis = call.get("dim", 0) % len(base.sizes)
    return axis, base.place(axis, start), base.place(axis, end)


def _only_fill(painted: Picture) -> Fill | None:
    contents = list(painted.cells.values())
    return contents[0] if len(contents) == 1 and isinstance(contents[0], Fill) else None


def _number(number: float) -> Fill:
    return Fill(lambda: torch.tensor([float(number)], dtype=torch.float64))


def _constant(constant: Constant, sizes: tuple[Any, ...] | None) -> Fill:
    """A constant that is laid out, or spread, over a region of so many axes, the second that of channels."""
    ndim = len(constant.shape if sizes is None else sizes)

    def load() -> Tensor | None:
        numbers = constant.load()
        numbers = numbers.reshape((1,) * (ndim - numbers.ndim) + tuple(numbers.shape))
        if ndim < 2:
            return None
        per_channel = numbers.transpose(0, 1).flatten(1)
        same = bool((per_channel == per_channel[:, :1]).all())
        return per_channel[:, 0] if same else None

    return Fill(load)
