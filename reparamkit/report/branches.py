"""The branches of a folded region: every way from what it reads to what it gives, as a chain of operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reparamkit.report.findings import Calling

_MOST = 16
_SUMS = ("add", "sub", "add_", "sub_", "rsub")


@dataclass(frozen=True)
class Branch:
    """Chains of the same operators side by side.

    Attributes:
        steps: the operators of the first of them in order, sums of branches left out; none for a branch that
            passes its input on.
        count: how many they are.
    """

    steps: tuple[Calling, ...]
    count: int


def branches(region: Sequence[Calling]) -> tuple[list[Branch], int]:
    """The branches, and how many more there are than are listed."""
    inside = {call.name: call for call in region}
    read = {name for call in region for name in call.reads if name in inside}
    ends = [call for call in region if call.name not in read]
    ways = list(_ways(ends, inside))
    kinds: dict[tuple[object, ...], tuple[Calling, ...]] = {}
    counts: Counter[tuple[object, ...]] = Counter()
    for way in ways:
        key = tuple(kind_of(call) for call in way)
        kinds.setdefault(key, way)
        counts[key] += 1
    listed = [Branch(steps, counts[key]) for key, steps in kinds.items()]
    return listed[:_MOST], sum(branch.count for branch in listed[_MOST:])


def _ways(ends: Sequence[Calling], inside: Mapping[str, Calling]) -> Iterator[tuple[Calling, ...]]:
    """Chains of operators from the inputs of the region to its ends, at most a few hundred.

    Ways part at sums and concatenations. Of anything else that reads several values the first is followed:
    what is written into a canvas is not a branch.
    """
    pending: list[tuple[Calling | None, tuple[Calling, ...]]] = [(end, ()) for end in reversed(ends)]
    given = 0
    while pending and given < 256:
        call, behind = pending.pop()
        if call is None:
            given += 1
            yield behind
            continue
        way = behind if _joins(call) else (call, *behind)
        read = call.reads if _parts(call) else call.reads[:1]
        pending += [(inside.get(name), way) for name in reversed(read)] if read else [(None, way)]


def _parts(call: Calling) -> bool:
    """Whether several branches meet in it."""
    return _joins(call) or call.operator in ("cat", "concat", "stack")


def _joins(call: Calling) -> bool:
    """Whether it only adds branches up."""
    return call.operator in _SUMS and len(call.reads) > 1


def kind_of(call: Calling) -> tuple[object, ...]:
    """Equal for calls of one operator with the same window, channels and groups."""
    return (
        call.operator,
        tuple(call.window),
        tuple(call.stride),
        tuple(call.dilation),
        call.channels,
        call.groups,
    )
