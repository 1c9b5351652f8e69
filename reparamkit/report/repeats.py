"""Blocks that follow each other and are equal: drawn once, with a count.

Modules of one parent, or a few in a row, are the same block again if their operators, kernels, channels and
the ways between them are, and if each reads the one before it. Branches side by side are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reparamkit.report.branches import kind_of
from reparamkit.report.findings import Calling

_LONGEST = 8


@dataclass(frozen=True)
class Repeat:
    """A block that comes several times.

    Attributes:
        modules: the paths of its modules, as they come first.
        last: those of its last occurrence.
        count: how often.
        calls: the names of the operators of its first occurrence.
    """

    modules: tuple[str, ...]
    last: tuple[str, ...]
    count: int
    calls: frozenset[str]


@dataclass
class Repeats:
    """`stands_for`: operator -> the one that is drawn for it; itself if it is drawn."""

    blocks: list[Repeat]
    stands_for: dict[str, str]


@dataclass(frozen=True)
class _Item:
    """What a module calls: one of its children (all operators in that), or an operator of its own."""

    path: str | None
    calls: tuple[Calling, ...]


def repeats(calls: Sequence[Calling], regions: Mapping[str, int]) -> Repeats:
    """The repeated blocks of a network.

    Args:
        regions: operator -> the fold that it is part of; blocks that fold differently are different.
    """
    result = Repeats([], {call.name: call.name for call in calls})
    _search("", list(calls), regions, result)
    for name, other in result.stands_for.items():
        while other != result.stands_for[other]:
            other = result.stands_for[other]
        result.stands_for[name] = other
    return result


def _search(path: str, calls: Sequence[Calling], regions: Mapping[str, int], result: Repeats) -> None:
    items = _items(path, calls)
    looks = [_look(item.calls, regions) for item in items]
    start = 0
    while start < len(items):
        period, count = _longest(items, looks, regions, start)
        if count > 1:
            _fold(items, start, period, count, result)
        for item in items[start : start + period]:
            if item.path is not None and len(item.calls) > 1:
                _search(item.path, item.calls, regions, result)
        start += period * count


def _items(path: str, calls: Sequence[Calling]) -> list[_Item]:
    depth = path.count(".") + 1 if path else 0
    children: dict[object, list[Calling]] = {}
    paths: dict[object, str | None] = {}
    for call in calls:
        names = call.module.split(".") if call.module else []
        own = len(names) <= depth
        key: object = (call.name,) if own else names[depth]
        children.setdefault(key, []).append(call)
        paths[key] = None if own else ".".join(names[: depth + 1])
    return [_Item(paths[key], tuple(inside)) for key, inside in children.items()]


def _look(calls: Sequence[Calling], regions: Mapping[str, int]) -> tuple[object, ...]:
    """Equal for calls that are drawn alike."""
    places = {call.name: place for place, call in enumerate(calls)}
    numbers: dict[int, int] = {}
    return tuple(
        (
            *kind_of(call),
            tuple(call.shape),
            tuple(places.get(name, -1) for name in call.reads),
            numbers.setdefault(regions[call.name], len(numbers)) if call.name in regions else -1,
        )
        for call in calls
    )


def _longest(
    items: Sequence[_Item], looks: Sequence[object], regions: Mapping[str, int], start: int
) -> tuple[int, int]:
    """How many items from here on come again, and how often, so that most are drawn once."""
    best, spared = (1, 1), 0
    for period in range(1, _LONGEST + 1):
        if all(item.path is None for item in items[start : start + period]):
            continue
        count = 1
        first = _joined(items, start, period)
        while looks[start : start + period] == looks[start + count * period : start + (count + 1) * period]:
            again = _joined(items, start + count * period, period)
            before = {call.name for call in _joined(items, start + (count - 1) * period, period)}
            if _look(again, regions) != _look(first, regions):
                break
            if not any(name in before for call in again for name in call.reads):
                break
            count += 1
        if period * (count - 1) > spared:
            best, spared = (period, count), period * (count - 1)
    return best


def _joined(items: Sequence[_Item], start: int, period: int) -> list[Calling]:
    return [call for item in items[start : start + period] for call in item.calls]


def _fold(items: Sequence[_Item], start: int, period: int, count: int, result: Repeats) -> None:
    first = _joined(items, start, period)
    for again in range(1, count):
        for call, kept in zip(_joined(items, start + again * period, period), first, strict=True):
            result.stands_for[call.name] = kept.name
    end = start + (count - 1) * period
    modules, last = (
        tuple(item.path for item in items[place : place + period] if item.path is not None)
        for place in (start, end)
    )
    result.blocks.append(Repeat(modules, last, count, frozenset(call.name for call in first)))
