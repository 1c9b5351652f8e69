"""What lies where in a value that was put together: other values, each whole, and constants per channel.

    z = F.pad(y, …);  z[:, :, :p] = c;  …     z = c.expand(n, C, h + 2, w + 2).clone();  z[…, 1:-1, 1:-1] = y
    z = torch.cat([row, y, row], 2)           z = torch.empty(n, 8, h, w);  z[:, :4] = u;  z[:, 4:] = v

Made functional, every assignment is a nest of slices, one copy and as many `slice_scatter`. A picture cuts
each axis of a value into segments; the cells between say what they hold. A picture of one value with the same
constant per channel all around is that value padded by the constant, and one of values beside each other is
their concatenation, however it was spelt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reparamkit.operators.base import (
    Bordered,
    Call,
    Concat,
    Constant,
    Meaning,
    NotAffine,
    Value,
    identity,
)
from reparamkit.operators.padding import one_tap, padded

END = sys.maxsize
"""The end of an axis. A place is counted from the front, or from the end if it is negative."""

_MOST = 256  # cells


@dataclass(frozen=True, eq=False)
class Fill:
    """A constant; `load` gives it per channel, (channels,) or (1,), or None if it varies within one."""

    load: Callable[[], Tensor | None]


Content = Value | Fill | None
"""What a cell holds: a whole value, a constant, or anything."""


@dataclass(frozen=True)
class Picture:
    """`places` cut each axis; `cells` hold what lies between, by the numbers of their segments.

    `touched` are the values that it was read off.
    """

    sizes: tuple[Any, ...]
    places: tuple[tuple[int, ...], ...]
    cells: Mapping[tuple[int, ...], Content]
    touched: frozenset[int] = frozenset()

    @classmethod
    def of(cls, sizes: tuple[Any, ...], content: Content) -> Picture:
        """The same everywhere."""
        return cls(sizes, ((),) * len(sizes), {(0,) * len(sizes): content})

    def cut(self, axis: int, places: Iterable[int]) -> Picture:
        """The same with more cuts; what is cut through is not known any more, unless it is a constant."""
        inner = {self.place(axis, p) for p in places} - {0, END}
        wanted = tuple(sorted(inner | set(self.places[axis]), key=_from_front_to_end))
        if wanted == self.places[axis]:
            return self
        segment, segments = 0, [0]
        for place in wanted:
            segment += place in self.places[axis]
            segments.append(segment)
        cells: dict[tuple[int, ...], Content] = {}
        for index, content in self.cells.items():
            parts = [i for i, s in enumerate(segments) if s == index[axis]]
            known = content if len(parts) == 1 or isinstance(content, Fill) else None
            cells |= {_with(index, axis, i): known for i in parts}
        return replace(self, places=_with(self.places, axis, wanted), cells=cells)

    def place(self, axis: int, place: int) -> int:
        """A place as it is written here: from the front where the length is known."""
        size = self.sizes[axis]
        if not isinstance(size, int):
            return place
        place = min(max(place + size, 0) if place < 0 else place, size)
        return END if place == size else place

    def segment(self, axis: int, place: int) -> int:
        """The number of the segment that begins at a place, or the count of all."""
        if place in (0, END):
            return 0 if place == 0 else len(self.places[axis]) + 1
        return self.places[axis].index(place) + 1


def picture(call: Call, known: Mapping[int, Picture]) -> Picture | None:
    """The picture of a call's result, by those of values before it; None for what no picture is made of."""
    painter = _PAINTERS.get(call.target)
    if painter is None:
        return None
    try:
        painted = painter(call, _Known(known))
    except _Unclear:
        return None
    contents = painted.cells.values()
    if len(contents) > _MOST or painted.sizes != call.result.sizes:
        return None
    if any(isinstance(c, Value) and c.dtype != call.result.dtype for c in contents):
        return None  # writing into a tensor of another type rounds
    return painted


def spelt(painted: Picture) -> tuple[Meaning, frozenset[int]] | None:
    """What a picture as a whole means, and the values that the meaning reads; None if it is nothing known."""
    held = [(index, content) for index, content in painted.cells.items() if isinstance(content, Value)]
    fills = [content for content in painted.cells.values() if isinstance(content, Fill)]
    read = frozenset(content.id for _, content in held)
    if not held or len(held) + len(fills) < len(painted.cells) or len(read) < len(held):
        return None
    axes = [axis for axis, places in enumerate(painted.places) if places]
    if not fills:
        if len(held) == 1:
            return identity(held[0][1]), read
        in_order = sorted(held, key=lambda each: each[0])
        return (Concat(tuple([v for _, v in in_order]), axes[0]), read) if len(axes) == 1 else None
    return _surrounded(painted, *held[0], fills, axes, read) if len(held) == 1 else None


def _surrounded(
    painted: Picture,
    index: tuple[int, ...],
    value: Value,
    fills: list[Fill],
    axes: list[int],
    read: frozenset[int],
) -> tuple[Meaning, frozenset[int]] | None:
    near, far = [], []
    for axis, places in enumerate(painted.places):
        segment, size = index[axis], painted.sizes[axis]
        first = places[segment - 1] if segment else 0
        last = places[segment] if segment < len(places) else END
        behind = 0 if last == END else size - last if isinstance(size, int) else -last
        if first < 0 or behind < 0:
            return None
        near.append(first)
        far.append(behind)
    if min(axes) < 2:
        return None
    try:
        structure = padded(value, near[2:], far[2:])
    except NotAffine:
        return None
    fill = _common(fills, value.shape[1])
    if fill is None:
        return None
    if not bool(fill.any()):
        return one_tap(value, structure, "a copy"), read
    return Bordered(value, structure, Constant(tuple(fill.shape), lambda: fill)), read


def _common(fills: list[Fill], channels: int) -> Tensor | None:
    """The constant per channel that all of them are."""
    first: Tensor | None = None
    for fill in dict.fromkeys(fills):
        numbers = fill.load()
        if numbers is None or len(numbers) not in (1, channels):
            return None
        numbers = numbers.expand(channels)
        if first is not None and not torch.equal(first, numbers):
            return None
        first = numbers
    return first


class _Unclear(Exception):
    """There is no picture."""


class _Known:
    """The pictures of what calls read."""

    def __init__(self, known: Mapping[int, Picture]) -> None:
        self._known = known

    def made(self, argument: Any) -> Picture:
        """The picture of a value that has one."""
        if not isinstance(argument, Value) or argument.id not in self._known:
            raise _Unclear
        return self._known[argument.id]

    def of(self, argument: Any, sizes: tuple[Any, ...] | None = None) -> Picture:
        """The picture of any argument; `sizes` are those that it is spread to."""
        if isinstance(argument, Constant):
            return Picture.of(argument.shape if sizes is None else sizes, _constant(argument, sizes))
        if isinstance(argument, bool | int | float):
            if sizes is None:
                raise _Unclear
            return Picture.of(sizes, _number(argument))
        if not isinstance(argument, Value):
            raise _Unclear
        whole = self._known.get(argument.id) or Picture.of(argument.sizes, argument)
        if sizes is None or sizes == argument.sizes:
            return whole
        fill = _only_fill(whole)
        if fill is None or whole.sizes[1:2] not in (sizes[1:2], (1,)) or len(whole.sizes) != len(sizes):
            raise _Unclear
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
        raise _Unclear
    inner, ndim = known.of(call.get("self")), call.result.ndim
    for i in range(len(amounts) // 2):
        near, far, axis = amounts[2 * i], amounts[2 * i + 1], ndim - 1 - i
        rim = Picture.of(_with(inner.sizes, axis, call.result.sizes[axis]), _number(filled))
        inner = _pasted(rim, inner, axis, near, -far or END)
    return inner


@painter("aten.cat.default", "aten.concat.default")
def _cat(call: Call, known: _Known) -> Picture:
    pieces = [known.of(piece) for piece in call.get("tensors")]
    axis = call.result.axis(call.get("dim", 0))
    canvas = Picture.of(call.result.sizes, None)
    lengths = [piece.sizes[axis] for piece in pieces]
    if sum(not isinstance(length, int) for length in lengths) > 1:
        raise _Unclear
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
        canvas = _pasted(canvas, piece, axis, start, end)
    return canvas


@painter("aten.slice.Tensor")
def _slice(call: Call, known: _Known) -> Picture:
    base = known.made(call.get("self"))
    axis, start, end = _range(call, base)
    return _taken(base, axis, start, end, call.result.sizes)


@painter("aten.select.int")
def _select(call: Call, known: _Known) -> Picture:
    base = known.made(call.get("self"))
    return replace(Picture.of(call.result.sizes, None), touched=base.touched)


@painter("aten.slice_scatter.default")
def _slice_scatter(call: Call, known: _Known) -> Picture:
    base, source = known.of(call.get("self")), known.of(call.get("src"))
    return _pasted(base, source, *_range(call, base))


@painter("aten.select_scatter.default")
def _select_scatter(call: Call, known: _Known) -> Picture:
    base, source = known.of(call.get("self")), known.of(call.get("src"))
    axis, index, fill = call.result.axis(call.get("dim")), call.get("index"), _only_fill(source)
    if fill is None or axis < 2 or not isinstance(index, int):
        raise _Unclear
    row = Picture.of((*base.sizes[:axis], 1, *base.sizes[axis + 1 :]), fill)
    row = replace(row, touched=source.touched)
    return _pasted(base, row, axis, index, END if index == -1 else index + 1)


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
        raise _Unclear
    return known.of(call.get("self"), call.result.sizes)


@painter("aten.clone.default", "aten.contiguous.default", "aten.alias.default")
def _same(call: Call, known: _Known) -> Picture:
    return known.made(call.get("self"))


@painter("aten.add.Tensor", "aten.mul.Tensor")
def _arithmetic(call: Call, known: _Known) -> Picture:
    sides = [known.of(call.get(name), call.result.sizes) for name in ("self", "other")]
    left, right = (_only_fill(side) for side in sides)
    if left is None or right is None or call.get("alpha", 1) != 1:
        raise _Unclear
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
        raise _Unclear
    axis = call.get("dim", 0) % len(base.sizes)
    return axis, base.place(axis, start), base.place(axis, end)


def _taken(base: Picture, axis: int, start: int, end: int, sizes: tuple[Any, ...]) -> Picture:
    """What lies between two places of an axis."""
    base = base.cut(axis, (start, end))
    first, last = base.segment(axis, start), base.segment(axis, end)
    if last <= first:
        raise _Unclear
    shown = Picture.of(sizes, None)
    places = tuple(
        shown.place(axis, p - start if p >= 0 and start >= 0 else p - (end if end < 0 else 0))
        for p in base.places[axis][first : last - 1]
    )
    cells = {
        _with(i, axis, i[axis] - first): content
        for i, content in base.cells.items()
        if first <= i[axis] < last
    }
    return replace(base, sizes=sizes, places=_with(base.places, axis, places), cells=cells)


def _pasted(base: Picture, source: Picture, axis: int, start: int, end: int) -> Picture:
    """`source` between two places of an axis of `base`."""
    start, end = base.place(axis, start), base.place(axis, end)
    for other in range(len(base.sizes)):
        if other != axis:
            base = base.cut(other, source.places[other])
            source = source.cut(other, base.places[other])
    fixed = start < 0 or 0 <= end < END
    if fixed and not isinstance(source.sizes[axis], int):
        raise _Unclear
    from_end = 0 if end == END else end
    inside = [p + (start if fixed or p >= 0 else from_end) for p in source.places[axis]]
    base = base.cut(axis, (start, end))
    first, last = base.segment(axis, start), base.segment(axis, end)
    places = base.places[axis]
    places = (*places[:first], *(base.place(axis, p) for p in inside), *places[last - 1 :])
    more = len(inside) + 1 - (last - first)
    cells: dict[tuple[int, ...], Content] = {}
    for index, content in base.cells.items():
        if not first <= index[axis] < last:
            cells[_with(index, axis, index[axis] + (more if index[axis] >= last else 0))] = content
    for index, content in source.cells.items():
        cells[_with(index, axis, index[axis] + first)] = content
    touched = base.touched | source.touched
    return Picture(base.sizes, _with(base.places, axis, places), cells, touched)


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


def _from_front_to_end(place: int) -> tuple[int, int]:
    return (2, 0) if place == END else (int(place < 0), place)


def _with(of_axes: tuple[Any, ...], axis: int, new: Any) -> tuple[Any, ...]:
    return (*of_axes[:axis], new, *of_axes[axis + 1 :])
