"""What is said once and counted: folds that differ in place alone, operators that stay for one reason."""

from __future__ import annotations

import re
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


def alike_folds(folds: Sequence[Folding], *, apart: bool = False, sizes: bool = True) -> list[Alike]:
    """The folds in the order of the network, each kind once.

    Args:
        apart: each by itself.
        sizes: whether folds into layers of other channels, kernels or strides are of another kind.
    """
    groups: dict[object, list[int]] = {}
    for index, fold in enumerate(folds):
        key: tuple[object, ...] = (index,)
        if not apart:
            layers = tuple(fold.layers.values()) if sizes else tuple(map(layer_kind, fold.layers.values()))
            key = tuple(sorted(fold.operators.items())), layers, fold.captured_only
        groups.setdefault(key, []).append(index)
    return [Alike(tuple(members), folds[members[0]]) for members in groups.values()]


def layer_kind(text: str) -> str:
    """Such as Conv2d of "Conv2d 3 -> 48, 3x3"."""
    return re.split(r" \d", text.rpartition(" as one ")[2])[0]


def alike_refusals(refusals: Sequence[Refusing]) -> list[Kept]:
    """Operators of one kind that stay for reasons which differ in names and numbers alone; most first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, refusal in enumerate(refusals):
        groups.setdefault((refusal.operator, without_names(refusal.reason)), []).append(index)
    kept = [Kept(tuple(members), refusals[members[0]]) for members in groups.values()]
    return sorted(kept, key=lambda one: -one.count)
