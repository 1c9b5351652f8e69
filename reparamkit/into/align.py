"""Two networks side by side: the one-to-one pairing of their values under which both compute the same.

Every value gets a number by what it is computed from, down to the inputs, in which neither names nor weights
count: equal numbers in both networks are equal structure. What is alike in that (two branches of one sum) is
told apart by what it is used for, up to the outputs, and then by its place in the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reparamkit.errors import UnusableInput
from reparamkit.into.flow import Flow, Value, is_commutative

_NAMED = 3


@dataclass(frozen=True)
class Pair:
    """A constant of the folded network and its partner in the target; None for one that is left out.

    `default` is the number that leaving it out stands for; `reader` is what reads it in the target.
    """

    ours: Value | None
    theirs: Value | None
    default: float | None
    reader: Value


def align(folded: Flow, target: Flow) -> list[Pair]:
    """The constants of two networks of one structure, paired.

    Raises:
        UnusableInput: they are not of one structure, naming the first values without a partner, or with two.
    """
    if len(folded.results) != len(target.results):
        raise UnusableInput(
            f"the folded network returns {len(folded.results)} values and the target {len(target.results)}: "
            "give a target that returns the same"
        )
    numbering = _Numbering()
    ours, theirs = numbering.of(folded), numbering.of(target)
    for place, (mine, its) in enumerate(zip(folded.results, target.results, strict=True)):
        same = isinstance(mine, Value) == isinstance(its, Value)
        if not same or (not isinstance(mine, Value) and mine != its):
            raise UnusableInput(f"output {place} of the folded network is another than that of the target")
        if isinstance(mine, Value) and isinstance(its, Value) and ours[id(mine)] != theirs[id(its)]:
            raise UnusableInput(_unlike(folded, target, ours, theirs, place))
    return _Pairing(
        _sorted_operands(folded, ours, numbering), _sorted_operands(target, theirs, numbering)
    ).pairs(folded, target)


class _Numbering:
    """Numbers for structures, the same in every network that it is asked about."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}

    def number(self, structure: object) -> int:
        return self._numbers.setdefault(structure, len(self._numbers))

    def of(self, flow: Flow) -> dict[int, int]:
        """id of a value -> the number of all that it is computed from."""
        numbers: dict[int, int] = {}
        for value in flow.values:
            if value.operator == "constant":
                numbers[id(value)] = self.number(("constant", _shape(value), value.dtype))
                continue
            operands = [
                -1 if operand is None or default is not None else numbers[id(operand)]
                for operand, default in zip(value.operands, value.defaults, strict=True)
            ]
            if is_commutative(value):
                operands.sort()
            arguments = ("input", value.arguments) if value.operator == "input" else value.arguments
            numbers[id(value)] = self.number(
                (value.operator, arguments, tuple(operands), value.shape, value.dtype)
            )
        return numbers


def _shape(value: Value) -> tuple[int, ...]:
    """The shape of a constant but for leading ones, which change nothing where it is read."""
    shape = list(value.shape)
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return tuple(shape)


def _sorted_operands(
    flow: Flow, below: dict[int, int], numbering: _Numbering
) -> tuple[dict[int, list[Value | None]], dict[int, int]]:
    """The operands of every value, those whose order does not matter sorted; and each value's number."""
    uses: dict[int, list[object]] = {id(value): [] for value in flow.values}
    for place, result in enumerate(flow.results):
        if isinstance(result, Value):
            uses[id(result)].append(("result", place))
    number: dict[int, int] = {}
    operands: dict[int, list[Value | None]] = {}
    for value in reversed(flow.values):
        number[id(value)] = numbering.number((below[id(value)], tuple(sorted(map(repr, uses[id(value)])))))
        for place, operand in enumerate(value.operands):
            if operand is not None:
                slot = 0 if is_commutative(value) else place
                uses[id(operand)].append((number[id(value)], slot))
    for value in flow.values:
        given = list(value.operands)
        if is_commutative(value):
            given.sort(key=lambda o: (below[id(o)], number[id(o)]))
        operands[id(value)] = given
    return operands, number


class _Pairing:
    def __init__(
        self,
        ours: tuple[dict[int, list[Value | None]], dict[int, int]],
        theirs: tuple[dict[int, list[Value | None]], dict[int, int]],
    ) -> None:
        self._ours, _ = ours
        self._theirs, _ = theirs
        self._partner: dict[int, Value] = {}
        self._taken: dict[int, Value] = {}

    def pairs(self, folded: Flow, target: Flow) -> list[Pair]:
        pairs: list[Pair] = []
        stack = [
            (mine, its)
            for mine, its in zip(folded.results, target.results, strict=True)
            if isinstance(mine, Value) and isinstance(its, Value)
        ]
        while stack:
            mine, its = stack.pop()
            known = self._partner.get(id(mine))
            if known is its:
                continue
            if known is not None or id(its) in self._taken:
                raise UnusableInput(_two_partners(mine, its, known, self._taken.get(id(its))))
            self._partner[id(mine)], self._taken[id(its)] = its, mine
            defaults = its.defaults
            for left, right, default in zip(
                self._ours[id(mine)], self._theirs[id(its)], defaults, strict=True
            ):
                sides = [side for side in (left, right) if side is not None]
                if sides and all(side.operator == "constant" for side in sides):
                    pairs.append(Pair(left, right, default, its))
                elif left is not None and right is not None:
                    stack.append((left, right))
                elif sides:
                    raise UnusableInput(f"{sides[0]} is computed from the input on one side only")
        for result, partner in zip(folded.results, target.results, strict=True):
            if isinstance(result, Value) and isinstance(partner, Value) and result.operator == "constant":
                pairs.append(Pair(result, partner, None, partner))
        return pairs


def _two_partners(mine: Value, its: Value, known: Value | None, other: Value | None) -> str:
    if known is not None:
        return (
            f"{mine} of the folded network has two partners in the target, {known} and {its}: which of them "
            "takes its numbers cannot be told"
        )
    return (
        f"{its} of the target has two partners in the folded network, {other} and {mine}: whose numbers it "
        "takes cannot be told"
    )


def _unlike(folded: Flow, target: Flow, ours: dict[int, int], theirs: dict[int, int], place: int) -> str:
    """The first values, seen from the inputs, that have no partner in the other network."""
    alone = _alone(folded, ours, theirs), _alone(target, theirs, ours)
    lines = []
    for values, here, there in (
        (alone[0], "the folded network", "the target"),
        (alone[1], "the target", "the folded network"),
    ):
        if values:
            more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
            named = "; ".join(map(str, values[:_NAMED]))
            lines.append(f"{here} has {named}{more}, without a partner in {there}")
    told = "; ".join(lines) or f"output {place} is computed otherwise"
    return f"the target is not built as the folded network is: {told}"


def _alone(flow: Flow, own: dict[int, int], other: dict[int, int]) -> Sequence[Value]:
    left = Counter(other.values())
    alone: list[Value] = []
    unmatched: set[int] = set()
    for value in flow.values:
        number = own[id(value)]
        if left[number] > 0:
            left[number] -= 1
            continue
        unmatched.add(id(value))
        if value.operator == "constant":
            continue
        operands = (o for o in value.operands if o is not None and o.operator != "constant")
        if not any(id(operand) in unmatched for operand in operands):
            alone.append(value)
    return alone
