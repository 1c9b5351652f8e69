"""Other sizes than the captured ones for a region that moves values, and what its reshapes ask for then.

    (2, 56, 64) ─▶ reshape (2, 8, 7, 64)          56 = 8 · 7: two digits, each of which may be another one

Every axis of a value is a row of digits. An axis of the region's inputs starts as one digit and is split
where a reshape splits it. Digits that a map tells apart or a cut counts stay as they were captured, those
that meet in a sum are the same, and all others may vary; a reshape at other sizes is then asked for the
product of the digits that it had at the captured ones. An operator that computes the length of an axis, as a
strided window does, makes a digit whose number is known once it has run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from reparamkit.algebra import Geometry, Transposed
from reparamkit.algebra.layout import Digit, Layout
from reparamkit.engine.graph import Node
from reparamkit.engine.host import Host
from reparamkit.operators import Affine, Concat, Contraction, Move, Opaque

Axis = tuple[int, ...]
"""The digits of an axis, by their numbers, the most significant first; none for an axis of one."""

_T = TypeVar("_T")


class _Split(Exception):
    """An axis of an input has more digits than was known."""


class Resizing:
    """What may vary in a region.

    Args:
        inputs: the values that are drawn.
        steps: the values computed from them, in order.
        held: axes of inputs that stay as captured, as (value, axis).
        needed: the shortest input of a window, along one of its axes, at which all of it meets data.
    """

    def __init__(
        self,
        host: Host,
        inputs: Sequence[int],
        steps: Sequence[int],
        needed: Callable[[Geometry | Transposed, int], int],
        held: Iterable[tuple[int, int]] = (),
    ) -> None:
        self._host, self._nodes, self._needed = host, host.graph.nodes, needed
        self._inputs, self.steps = inputs, steps
        self._lengths = {
            (value, axis): [size]
            for value in inputs
            for axis, size in enumerate(self._nodes[value].value.shape)
        }
        while True:
            try:
                self._follow(held)
            except _Split:
                continue
            return

    def numbers(self, parity: int) -> dict[int, int] | None:
        """A number for every digit of the inputs, odd or even for those that vary; None if none does."""
        numbers = {digit: self._length[digit] for digit in self._place if self._is_of_input(digit)}
        varying = [digit for digit in numbers if digit not in self._fixed]
        fixed = {self._same(digit) for digit in numbers if digit in self._fixed}
        for number, (root, group) in enumerate(_grouped(varying, self._same).items()):
            if root not in fixed:
                least = max(3 - parity + 2 * (number % 2), *(self._least.get(digit, 0) for digit in group))
                least += (least - parity) % 2
                numbers |= dict.fromkeys(group, least if least != self._length[root] else least + 2)
        return numbers if any(n != self._length[digit] for digit, n in numbers.items()) else None

    def input_shape(self, value: int, numbers: Mapping[int, int]) -> tuple[int, ...]:
        """The shape of an input."""
        return tuple(math.prod(numbers[digit] for digit in axis) for axis in self._axes[value])

    def shape(
        self, step: int, numbers: Mapping[int, int], env: Mapping[Any, Tensor]
    ) -> tuple[int, ...] | None:
        """The shape of a step's result; None if it has to have run for that."""

        def number(digit: int) -> int:
            if digit in numbers or not self._behind[digit]:
                return numbers.get(digit, self._length[digit])
            value, axis = self._place[digit]
            return env[value].shape[axis]

        try:
            return tuple(math.prod(map(number, axis)) for axis in self._axes[step])
        except KeyError:
            return None

    # digits

    def _digit(self, length: int, place: tuple[int, int], behind: frozenset[int] | None = None) -> int:
        """A new digit; `behind` are the digits of inputs that it depends on (None: it is one itself)."""
        digit = len(self._length)
        self._length.append(length)
        self._place[digit] = place
        self._behind.append(frozenset((digit,)) if behind is None else behind)
        self._roots.append(digit)
        return digit

    def _is_of_input(self, digit: int) -> bool:
        return digit in self._behind[digit]

    def _same(self, digit: int) -> int:
        while self._roots[digit] != digit:
            digit = self._roots[digit]
        return digit

    def _hold(self, digits: Iterable[int]) -> None:
        for digit in digits:
            self._fixed |= self._behind[digit]

    def _split(self, digit: int, last: int) -> tuple[int, int]:
        """The two digits, the second of this length, that one is."""
        lengths = self._length[digit] // last, last
        if self._is_of_input(digit):
            value, axis = self._place[digit]
            before = sum(other < digit for other in self._axes[value][axis])
            self._lengths[value, axis][before : before + 1] = lengths
            raise _Split
        self._hold((digit,))
        first, second = (self._digit(n, self._place[digit], frozenset()) for n in lengths)
        return first, second

    def _unite(self, one: Axis, other: Axis) -> None:
        """Two axes of one length meet in one operator."""
        one_left, other_left = self._longer_than_one(one), self._longer_than_one(other)
        while one_left and other_left:
            a, b = one_left.pop(), other_left.pop()
            if self._length[a] != self._length[b]:
                longer = self._length[a] > self._length[b]
                left, digit, last = (one_left, a, b) if longer else (other_left, b, a)
                if self._length[digit] % self._length[last]:
                    self._hold((*one, *other))
                    return
                first, rest = self._split(digit, self._length[last])
                left.append(first)
                a, b = rest, last
            if self._is_of_input(a) and self._is_of_input(b):
                self._roots[self._same(a)] = self._same(b)
            elif a != b:
                self._hold((a, b))

    def _longer_than_one(self, digits: Sequence[int]) -> list[int]:
        """The digits without those that an operator came to at the captured size: these stay."""
        self._hold(digit for digit in digits if self._length[digit] == 1)
        return [digit for digit in digits if self._length[digit] != 1]

    # operators

    def _follow(self, held: Iterable[tuple[int, int]]) -> None:
        self._length: list[int] = []
        self._place: dict[int, tuple[int, int]] = {}
        self._behind: list[frozenset[int]] = []
        self._roots: list[int] = []
        self._fixed: set[int] = set()
        self._least: dict[int, int] = {}
        self._axes: dict[int, tuple[Axis, ...]] = {}
        for value in self._inputs:
            self._axes[value] = tuple(
                tuple(self._digit(n, (value, axis)) for n in self._lengths[value, axis] if n != 1)
                for axis in range(self._nodes[value].value.ndim)
            )
        for value, axis in held:
            self._hold(self._axes[value][axis])
        for step in self.steps:
            node = self._nodes[step]
            operands = [i for i in self._host.reads(step) if i in self._axes]
            if not operands:  # what it makes has the captured sizes, or none that matter
                continue
            self._meet_maps(node, operands)
            if isinstance(node.meaning, Affine) and self._host.ends_at_fixed_place(step):
                self._hold(digit for i in operands for axis in self._axes[i] for digit in axis)
            if isinstance(node.meaning, Move):
                self._axes[step] = self._moved(node, operands[0], node.meaning)
            elif isinstance(node.meaning, Contraction):
                self._axes[step] = self._contracted(node, self._axes[operands[0]], node.meaning)
            else:
                self._axes[step] = self._alike(node, operands)

    def _meet_maps(self, node: Node, operands: Sequence[int]) -> None:
        """What tells channels apart has as many of them as captured; windows have to be filled."""
        terms = [other.term for other in self._host.graph.owner(node.id).alternatives]
        maps = [(term.value.id, term.structure) for term in terms]
        if isinstance(node.meaning, Affine):
            maps += [(term.value.id, term.structure) for term in node.meaning.terms]
        elif isinstance(node.meaning, Opaque):
            maps = [(i, structure) for i in operands for _, structure in maps]
            if not maps:
                self._hold(digit for i in operands for axis in self._axes[i] for digit in axis)
        elif isinstance(node.meaning, Concat):
            self._hold(digit for i in operands for digit in self._axes[i][node.meaning.axis])
        elif node.product is not None:
            for factor, summed in zip(node.product, (-1, -2), strict=True):
                self._hold(self._axes[factor][summed] if factor in self._axes else ())
        for value, structure in maps:
            if value not in self._axes or not isinstance(structure, Geometry | Transposed):
                continue
            axes = self._axes[value][len(self._axes[value]) - 1 - structure.dims :]
            self._hold(axes[0])
            for place, axis in enumerate(axes[1:]):
                for digit in axis if len(axis) == 1 else ():
                    least = self._needed(structure, place)
                    for each in self._behind[digit]:
                        self._least[each] = max(least, self._least.get(each, 0))

    def _alike(self, node: Node, operands: Sequence[int]) -> tuple[Axis, ...]:
        """The axes of a result that has those of its operands, but for lengths that the operator computes."""
        shape, axes = node.value.shape, list[Axis]()
        for axis, length in enumerate(shape):
            place = axis - len(shape)
            met = [
                (self._axes[i][place], self._nodes[i].value.shape[place])
                for i in operands
                if self._nodes[i].value.ndim >= -place
            ]
            equal = [digits for digits, n in met if n == length]
            for other in equal[1:]:
                self._unite(equal[0], other)
            behind = [self._behind[digit] for digits, _ in met for digit in digits]
            axes.append(equal[0] if equal else (self._digit(length, (node.id, axis), _all(behind)),))
        return tuple(axes)

    def _contracted(self, node: Node, axes: Sequence[Axis], contraction: Contraction) -> tuple[Axis, ...]:
        """The axes that it does not act along; those that it does stay as they are captured."""
        self._hold(digit for axis in contraction.axes for digit in axes[axis])
        fresh_axes = [
            () if n == 1 else (self._digit(n, (node.id, axis), frozenset()),)
            for axis, n in enumerate(contraction.sizes)
        ]
        return tuple(
            new if place is None else axes[place]
            for new, place in zip(fresh_axes, contraction.places, strict=True)
        )

    def _moved(self, node: Node, operand: int, move: Move) -> tuple[Axis, ...]:
        shape, before = node.value.shape, self._nodes[operand].value
        places = {axis: _place(move, axis) for axis in range(before.ndim) if before.shape[axis] != 1}
        lost = [axis for axis, place in places.items() if place is None]
        if lost and math.prod(shape) == math.prod(before.shape):
            return self._regrouped([digit for axis in self._axes[operand] for digit in axis], node)
        if move.cuts and not (move.alone and before.ndim == len(shape)):
            self._hold(digit for axis in lost for digit in self._axes[operand][axis])
        kept = {place: self._axes[operand][axis] for axis, place in places.items() if place is not None}
        behind = [self._behind[digit] for axis in lost for digit in self._axes[operand][axis]]
        return tuple(
            kept.get(axis, () if n == 1 else (self._digit(n, (node.id, axis), _all(behind)),))
            for axis, n in enumerate(shape)
        )

    def _regrouped(self, digits: list[int], node: Node) -> tuple[Axis, ...]:
        """The digits as the axes of a reshape have them."""
        axes: list[Axis] = []
        left = self._longer_than_one(digits)[::-1]
        for length in node.value.shape:
            axis: list[int] = []
            missing = length
            while missing != 1:
                digit = left.pop()
                if self._length[digit] > missing and self._length[digit] % missing == 0:
                    digit, rest = self._split(digit, self._length[digit] // missing)
                    left.append(rest)
                if missing % self._length[digit]:
                    self._hold(digits)
                    return tuple(
                        () if n == 1 else (self._digit(n, (node.id, a), frozenset()),)
                        for a, n in enumerate(node.value.shape)
                    )
                axis.append(digit)
                missing //= self._length[digit]
            axes.append(tuple(axis))
        return tuple(axes)


def _place(move: Move, axis: int) -> int | None:
    """The axis of the result that is this one of the operand; None if there is no such axis."""
    sizes = move.value.sizes
    carried = move.carry(Layout(tuple((Digit(size, int(a == axis)),) for a, size in enumerate(sizes))))
    whole = (Digit(sizes[axis], 1),)
    return carried.axes.index(whole) if carried is not None and whole in carried.axes else None


def _all(groups: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*groups)


def _grouped(items: Iterable[_T], key: Callable[[_T], _T]) -> dict[_T, list[_T]]:
    groups: dict[_T, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
