"""Where the channels of a value come to lie in what is made of it by moving, cutting and averaging.

Every axis of a tensor is a tuple of mixed-radix *digits*, the most significant first. A digit counts to its
size, and one step of it is `stride` channels of the value that all is made of:

    channel(index) = first + Σ stride · digit            stride 0: all positions have the same channel

So (batch, 8 channels, height) is (batch:0) (8:1) (height:0); reshaped to (4·batch, 2, height) it is
(batch:0)(4:2) (2:1) (height:0). A map per channel passes every operator that has an answer here, and
becomes a map with the same numbers along the digits where the channels then lie:

    D ∘ P = P ∘ D'

Sizes that vary are monomials, so that a reshape is exact division of products. Tensors without elements have
no layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Monomial:
    """A size that varies: a number times named sizes, in the order of their names."""

    number: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "*".join([*([] if self.number == 1 else [str(self.number)]), *self.names])

    def __repr__(self) -> str:
        return str(self)


Size = int | Monomial
"""A fixed size, or one that may vary."""


def product(sizes: Sequence[Size]) -> Size:
    """All of them multiplied."""
    number, names = 1, list[str]()
    for size in sizes:
        if isinstance(size, int):
            number *= size
        else:
            number *= size.number
            names += size.names
    return Monomial(number, tuple(sorted(names))) if names else number


def quotient(size: Size, by: Size) -> Size | None:
    """The size divided; None if that does not come out even for all sizes."""
    number, names = (size, list[str]()) if isinstance(size, int) else (size.number, list(size.names))
    divisor, divisors = (by, ()) if isinstance(by, int) else (by.number, by.names)
    if divisor == 0 or number % divisor:
        return None
    for name in divisors:
        if name not in names:
            return None
        names.remove(name)
    return Monomial(number // divisor, tuple(names)) if names else number // divisor


@dataclass(frozen=True, slots=True)
class Digit:
    """Counts to `size`; one step of it is `stride` channels."""

    size: Size
    stride: int = 0


Axis = tuple[Digit, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The digits of every axis of a tensor, and the channel that its first element has."""

    axes: tuple[Axis, ...]
    first: int = 0

    @classmethod
    def of(cls, sizes: Sequence[Size], axis: int) -> Layout | None:
        """The layout of a value itself, whose channels lie along `axis`; None if their number varies."""
        return _of(tuple(sizes), axis) if isinstance(sizes[axis], int) else None

    @classmethod
    def along(cls, sizes: Sequence[Size], axis: int) -> Layout:
        """The same for any axis: its positions, as many as there may be, are the channels."""
        return _of(tuple(sizes), axis)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The shape of the tensor."""
        return tuple(product([digit.size for digit in axis]) for axis in self.axes)

    @property
    def channel_axis(self) -> int | None:
        """The one axis that tells channels apart, and does nothing else; None if there is no such axis."""
        told = [a for a, axis in enumerate(self.axes) if any(digit.stride for digit in axis)]
        if len(told) != 1 or not all(digit.stride for digit in self.axes[told[0]]):
            return None
        return told[0]

    @property
    def telling_axis(self) -> int | None:
        """The one axis that tells channels apart, whatever else it does; None if several do, or it varies."""
        told = [a for a, axis in enumerate(self.axes) if any(digit.stride for digit in axis)]
        return told[0] if len(told) == 1 and self.is_told_by_fixed_axes else None

    def channels(self) -> Tensor:
        """The channel of every position, with one position along the axes that tell no channels apart.

        Only for layouts in which no axis that tells channels apart has a size that varies.
        """
        channels = torch.tensor(self.first)
        for axis in self.axes:
            along = torch.zeros(1, dtype=torch.long)
            if any(digit.stride for digit in axis):
                for digit in axis:
                    assert isinstance(digit.size, int)
                    steps = torch.arange(digit.size) * digit.stride
                    along = (along[:, None] + steps).flatten()
            channels = channels[..., None] + along
        return channels

    @property
    def is_told_by_fixed_axes(self) -> bool:
        """Whether `channels` has an answer."""
        return all(
            isinstance(digit.size, int)
            for axis in self.axes
            if any(digit.stride for digit in axis)
            for digit in axis
        )

    def permuted(self, order: Sequence[int]) -> Layout:
        """Axis `order[i]` becomes axis i."""
        return replace(self, axes=tuple(self.axes[a] for a in order))

    def reshaped(self, sizes: Sequence[Size]) -> Layout | None:
        """The same elements in the same order, in another shape; None where that cannot be told.

        Digits are taken from both ends by exact division. What is left in the middle goes to the one axis
        that is left, or to several if it tells no channels apart.
        """
        if product(sizes) != product(self.sizes):
            return None
        rest = _merged([digit for axis in self.axes for digit in axis])
        wanted = list(sizes)
        left: list[Axis] = []
        while wanted and (taken := _taken(rest, wanted[0], front=True)) is not None:
            left.append(taken[0])
            rest, wanted = taken[1], wanted[1:]
        right: list[Axis] = []
        while wanted and (taken := _taken(rest, wanted[-1], front=False)) is not None:
            right.insert(0, taken[0])
            rest, wanted = taken[1], wanted[:-1]
        middle: list[Axis] = []
        if len(wanted) == 1 and product([digit.size for digit in rest]) == wanted[0]:
            middle, rest = [_axis(rest)], []
        elif wanted and not any(digit.stride for digit in rest):
            middle, rest = [_axis([Digit(size)]) for size in wanted], []
        elif wanted:
            return None
        if rest:
            return None
        return replace(self, axes=(*left, *middle, *right))

    def cut(self, axis: int, start: int, size: Size, step: int = 1) -> Layout | None:
        """`size` positions of an axis, every `step`-th from `start` on."""
        digits = self.axes[axis]
        if not any(digit.stride for digit in digits):
            return self._with(axis, _axis([Digit(size)]))
        if not isinstance(size, int) or size == 0:
            return None
        first, kept = self.first, list[Digit]()
        for place, digit in enumerate(digits):
            below = product([other.size for other in digits[place + 1 :]])
            if not isinstance(below, int):
                return None
            end = start + (size - 1) * step
            if start // below == end // below:  # all of it lies at one position of this digit
                first += digit.stride * (start // below)
                start %= below
            elif step % below == 0 or (step == 1 and start % below == 0 and size % below == 0):
                hop = max(step // below, 1)
                count = size if step > 1 or below == 1 else size // below
                first += digit.stride * (start // below)
                kept.append(Digit(count, digit.stride * hop))
                if step == 1:
                    kept += digits[place + 1 :]
                elif below > 1:  # one position of what lies below, the same for all
                    return self._selected_below(axis, digits[place + 1 :], start % below, first, kept)
                break
            else:
                return None
        return replace(self._with(axis, _axis(kept)), first=first)

    def selected(self, axis: int, index: int) -> Layout | None:
        """One position of an axis, which goes."""
        cut = self.cut(axis, index, 1)
        return None if cut is None else cut.without([axis])

    def without(self, axes: Sequence[int], *, keep: bool = False) -> Layout | None:
        """Averaged along axes, which go or become one long; None if that mixes channels."""
        if any(digit.stride for a in axes for digit in self.axes[a]):
            return None
        kept = [() if a in axes else axis for a, axis in enumerate(self.axes) if keep or a not in axes]
        return replace(self, axes=tuple(kept))

    def resized(self, sizes: Sequence[Size]) -> Layout | None:
        """Another number of positions along axes that tell no channels apart; others must keep theirs."""
        axes: list[Axis] = []
        for digits, size in zip(self.axes, sizes, strict=True):
            if product([digit.size for digit in digits]) == size:
                axes.append(digits)
            elif any(digit.stride for digit in digits):
                return None
            else:
                axes.append(_axis([Digit(size)]))
        return replace(self, axes=tuple(axes))

    def is_closed(self, axes: Sequence[int]) -> bool:
        """Whether none of these axes tells channels apart."""
        return not any(digit.stride for a in axes for digit in self.axes[a])

    def _with(self, axis: int, digits: Axis) -> Layout:
        return replace(self, axes=(*self.axes[:axis], digits, *self.axes[axis + 1 :]))

    def _selected_below(
        self, axis: int, digits: Axis, start: int, first: int, kept: list[Digit]
    ) -> Layout | None:
        for place, digit in enumerate(digits):
            below = product([other.size for other in digits[place + 1 :]])
            assert isinstance(below, int)
            first += digit.stride * (start // below)
            start %= below
        return replace(self._with(axis, _axis(kept)), first=first)


@lru_cache(maxsize=4096)
def _of(sizes: tuple[Size, ...], axis: int) -> Layout:
    return Layout(tuple(_axis([Digit(size, int(a == axis))]) for a, size in enumerate(sizes)))


def _axis(digits: Sequence[Digit]) -> Axis:
    return tuple(digit for digit in _merged(list(digits)) if digit.size != 1)


def _merged(digits: list[Digit]) -> list[Digit]:
    """The fewest digits that count the same: (4:2)(2:1) is (8:1)."""
    merged: list[Digit] = []
    for digit in digits:
        if digit.size == 1:
            continue
        last = merged[-1] if merged else None
        closed = last is not None and last.stride == digit.stride == 0
        runs_on = (
            last is not None and isinstance(digit.size, int) and last.stride == digit.stride * digit.size != 0
        )
        if last is not None and (closed or runs_on):
            merged[-1] = Digit(product([last.size, digit.size]), digit.stride)
        else:
            merged.append(digit)
    return merged


def _taken(digits: list[Digit], size: Size, *, front: bool) -> tuple[Axis, list[Digit]] | None:
    """The first (or last) digits that make up an axis of this size, and the others; None if none do."""
    rest, axis = list(digits), list[Digit]()
    missing = size
    while missing != 1:
        if not rest:
            return None
        digit = rest.pop(0 if front else -1)
        further = quotient(missing, digit.size)
        if further is not None:
            missing, part = further, digit
        else:
            other = quotient(digit.size, missing)
            if other is None:
                return None
            if front:
                if digit.stride and not isinstance(other, int):
                    return None
                part = Digit(missing, digit.stride * (other if isinstance(other, int) else 0))
                rest.insert(0, Digit(other, digit.stride))
            else:
                if digit.stride:  # the channels are cut from the front; where that fails, no shape is right
                    return None
                part = Digit(missing, 0)
                rest.append(Digit(other, 0))
            missing = 1
        axis = [*axis, part] if front else [part, *axis]
    return _axis(axis), rest
