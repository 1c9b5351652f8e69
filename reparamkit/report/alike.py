"""What is said once and counted: folds that differ in place alone, operators that stay for one reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reparamkit.report.findings import Folding, Refusing
from reparamkit.report.words import without_names


@dataclass(frozen=True)
class Alike:
    """Folds of the same operators into the same layers; `members` are their places in the list."""

    members: tuple[int, ...]
    first: Folding

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.members)


@dataclass(frozen=True)
class Kept:
    """Operators that stay for one kind of reason; `members` are their places in the list."""

    members: tuple[int, ...]
    first: Refusing

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.members)


def alike_folds(folds: Sequence[Folding], *, apart: bool = False) -> list[Alike]:
    """The folds in the order of the network, each kind once; `apart`: each by itself."""
    groups: dict[object, list[int]] = {}
    for index, fold in enumerate(folds):
        key: tuple[object, ...] = (
            tuple(sorted(fold.operators.items())),
            tuple(fold.layers.values()),
            fold.captured_only,
        )
        key = (index,) if apart else key
        groups.setdefault(key, []).append(index)
    return [Alike(tuple(members), folds[members[0]]) for members in groups.values()]


def alike_refusals(refusals: Sequence[Refusing]) -> list[Kept]:
    """Operators of one kind that stay for reasons which differ in names and numbers alone; most first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, refusal in enumerate(refusals):
        groups.setdefault((refusal.operator, without_names(refusal.reason)), []).append(index)
    kept = [Kept(tuple(members), refusals[members[0]]) for members in groups.values()]
    return sorted(kept, key=lambda one: -one.count)
