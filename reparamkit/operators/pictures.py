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

from reparamkit.operators.base import Bordered, Concat, Constant, Meaning, NotAffine, Value, identity
from reparamkit.operators.padding import padded

END = sys.maxsize
"""The end of an axis. A place is counted from the front, or from the end if it is negative."""


class Unclear(Exception):
    """There is no picture."""


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
            cells |= {with_axis(index, axis, i): known for i in parts}
        return replace(self, places=with_axis(self.places, axis, wanted), cells=cells)

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


def spelt(painted: Picture) -> tuple[Meaning, frozenset[int]] | None:
    """What a picture as a whole means, and the values that the meaning reads; None if it is nothing known."""
    held = {index: content for index, content in painted.cells.items() if isinstance(content, Value)}
    fills = [content for content in painted.cells.values() if isinstance(content, Fill)]
    read = frozenset(value.id for value in held.values())
    if not held or len(held) + len(fills) < len(painted.cells) or len(read) < len(held):
        return None
    axes = [axis for axis, places in enumerate(painted.places) if places]
    meaning: Meaning | None = None
    if len(held) == 1:
        ((index, value),) = held.items()
        meaning = _surrounded(painted, index, value, fills) if fills else identity(value)
    elif not fills and len(axes) == 1:
        meaning = Concat(tuple([held[index] for index in sorted(held)]), axes[0])
    return None if meaning is None else (meaning, read)


def _surrounded(painted: Picture, index: tuple[int, ...], value: Value, fills: list[Fill]) -> Meaning | None:
    """A value in the cell `index` with one constant around it, along spatial axes; else None."""
    near, far = [], []
    for axis, places in enumerate(painted.places):
        segment, size = index[axis], painted.sizes[axis]
        first = places[segment - 1] if segment else 0
        last = places[segment] if segment < len(places) else END
        behind = 0 if last == END else size - last if isinstance(size, int) else -last
        if first < 0 or behind < 0 or (places and axis < 2):
            return None
        near.append(first)
        far.append(behind)
    try:
        structure = padded(value, near[2:], far[2:])
    except NotAffine:
        return None
    fill = _common(fills, value.shape[1])
    if fill is None:
        return None
    return Bordered(value, structure, Constant(tuple(fill.shape), lambda: fill, not bool(fill.any())))


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


def taken(base: Picture, axis: int, start: int, end: int, sizes: tuple[Any, ...]) -> Picture:
    """What lies between two places of an axis."""
    base = base.cut(axis, (start, end))
    first, last = base.segment(axis, start), base.segment(axis, end)
    if last <= first:
        raise Unclear
    shown = Picture.of(sizes, None)
    places = tuple(
        shown.place(axis, p - start if p >= 0 and start >= 0 else p - (end if end < 0 else 0))
        for p in base.places[axis][first : last - 1]
    )
    cells = {
        with_axis(i, axis, i[axis] - first): content
        for i, content in base.cells.items()
        if first <= i[axis] < last
    }
    return replace(base, sizes=sizes, places=with_axis(base.places, axis, places), cells=cells)


def pasted(base: Picture, source: Picture, axis: int, start: int, end: int) -> Picture:
    """`source` between two places of an axis of `base`."""
    start, end = base.place(axis, start), base.place(axis, end)
    for other in range(len(base.sizes)):
        if other != axis:
            base = base.cut(other, source.places[other])
            source = source.cut(other, base.places[other])
    fixed = start < 0 or 0 <= end < END
    if fixed and not isinstance(source.sizes[axis], int):
        raise Unclear
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
            cells[with_axis(index, axis, index[axis] + (more if index[axis] >= last else 0))] = content
    for index, content in source.cells.items():
        cells[with_axis(index, axis, index[axis] + first)] = content
    touched = base.touched | source.touched
    return Picture(base.sizes, with_axis(base.places, axis, places), cells, touched)


def _from_front_to_end(place: int) -> tuple[int, int]:
    return (2, 0) if place == END else (int(place < 0), place)


def with_axis(of_axes: tuple[Any, ...], axis: int, new: Any) -> tuple[Any, ...]:
    """What is told axis by axis, with something new for one of them."""
    return (*of_axes[:axis], new, *of_axes[axis + 1 :])
