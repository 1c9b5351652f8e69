"""Numbers for the target's own weights under which its folded layers hold what those of the network hold.

What the target's own numbers give already stays as it is. Elsewhere batch norms become the identity first.
Then one tensor takes the numbers (`reparamkit.into.equations`), where the others are zero if the layer
depends on it without them (a branch beside it), and one if not (a scale behind it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from reparamkit.into.equations import Goal, close, combined, inverted, placed, trial, whole_table
from reparamkit.into.target import Target, Unsettable

_ULPS = 4.0


class _Settled:
    """Which numbers of which tensors of the target are decided, and for which goal."""

    def __init__(self, target: Target, own: Mapping[str, Tensor]) -> None:
        self._target, self._own = target, own
        self._masks: dict[str, Tensor] = {}
        self.by: dict[str, str] = {}

    def add(self, name: str, goal: Goal, places: Tensor | None = None) -> None:
        """These numbers of a tensor, by default all of them."""
        mask = self._masks.setdefault(name, torch.zeros(self._target.tensors[name].numel(), dtype=torch.bool))
        mask[slice(None) if places is None else places] = True
        self.by.setdefault(name, goal.what)

    def mask(self, name: str) -> Tensor | None:
        """Which numbers of a tensor are; None for none at all."""
        return self._masks.get(name)

    def numbers(self, name: str) -> Tensor:
        """Those that a tensor has as long as nothing else is decided, in float64."""
        return self._target.trial.get(name, trial(self._own.get(name, self._target.tensors[name])))

    def in_part(self) -> dict[str, int]:
        """The tensors of which some numbers are decided, and are others now, and how many those are."""
        return {
            name: int(mask.sum())
            for name, mask in self._masks.items()
            if name in self._own
            and bool(mask.any())
            and not bool(mask.all())
            and not _rounds_to(self._target.trial.get(name, self._own[name]), self._own[name])
        }

    def whole(self, name: str) -> bool:
        """Whether all numbers of a tensor are."""
        mask = self._masks.get(name)
        return mask is not None and bool(mask.all())


def settle(target: Target, goals: Iterable[Goal], own: Mapping[str, Tensor]) -> dict[str, int]:
    """Put into `target.trial` what its weights have to be.

    Args:
        own: the target's own numbers, which need not be those that it was captured with. Goals that they
            reach keep them, so that what no example shows of a tensor (rows of a table) stays as well.

    Returns:
        Tensors of which only some numbers follow from the goals -> how many those are.

    Raises:
        Unsettable: no numbers reach a goal, or two goals ask for different ones, by name.
    """
    ordered = sorted(goals, key=lambda goal: (goal.own is None, -goal.numbers.squeeze().ndim))
    reached = _reached_by(target, ordered, own)
    asked = reading(target, [goal for goal in ordered if goal not in reached])
    apart = [goal for goal in reached if not reading(target, [goal]) & asked]
    for kept in (reached, apart):
        if kept:
            try:
                return _settle(target, ordered, kept, own)
            except Unsettable:
                target.trial.clear()
    return _settle(target, ordered, [], own)


def _reached_by(target: Target, goals: Sequence[Goal], own: Mapping[str, Tensor]) -> list[Goal]:
    """The goals that hold their numbers with those of `own`, each to within rounding of its own."""
    target.trial.update({name: trial(own[name]) for name in own.keys() & target.tensors.keys()})
    reached = [goal for goal in goals if _holds(goal) and _holds_table(target, goal, own)]
    target.trial.clear()
    return reached


def _holds(goal: Goal) -> bool:
    try:
        return _rounds_to(goal.evaluate(), goal.numbers)
    except Unsettable:
        return False


def _holds_table(target: Target, goal: Goal, own: Mapping[str, Tensor]) -> bool:
    """Whether that goes for what was not chosen out of a table, too."""
    if goal.chosen is None:
        return True
    tables = [name for name in reading(target, [goal]) & own.keys() if own[name].is_floating_point()]
    return len(tables) != 1 or (
        own[tables[0]].shape != goal.chosen.table.shape or _rounds_to(own[tables[0]], goal.chosen.table)
    )


def _rounds_to(values: Tensor, numbers: Tensor) -> bool:
    now, wanted = trial(values).flatten(), trial(numbers).flatten()
    if now.dtype != wanted.dtype or now.shape != wanted.shape:
        return False
    if not now.is_floating_point():
        return torch.equal(now, wanted)
    eps = torch.finfo(numbers.dtype).eps
    return bool(((now - wanted).abs() <= _ULPS * eps * torch.maximum(now.abs(), wanted.abs())).all())


def _settle(
    target: Target, ordered: Sequence[Goal], reached: Sequence[Goal], own: Mapping[str, Tensor]
) -> dict[str, int]:
    settled = _Settled(target, own)
    of_reached = {
        goal: sorted(reading(target, [goal]) & own.keys() & target.tensors.keys()) for goal in reached
    }
    target.trial.update({name: trial(own[name]) for names in of_reached.values() for name in names})
    for goal, names in of_reached.items():
        for name in names if goal.own is not None else _counting(target, goal, names):
            settled.add(name, goal)
    left = [goal for goal in ordered if goal not in reached]
    for goal in (goal for goal in left if goal.own is not None):
        _copy(target, goal, settled)
    # What follows from one tensor leaves no choice, and goes before what could take it otherwise.
    made_of = sorted(
        (goal for goal in left if goal.own is None), key=lambda goal: len(_free(target, goal, settled)) > 1
    )
    _make_norms_idle(target, made_of, settled)
    for goal in made_of:
        _reach(target, goal, settled)
    for goal in ordered:
        if not _is_reached(goal):
            raise Unsettable(f"{goal.what} shares its weights with other layers that ask for other numbers")
    return settled.in_part()


def _is_reached(goal: Goal) -> bool:
    try:
        return close(goal.evaluate(), goal.numbers)
    except Unsettable:
        return False


def _copy(target: Target, goal: Goal, settled: _Settled) -> None:
    name = goal.own
    assert name is not None
    mine = target.tensors[name]
    if goal.numbers.dtype.is_floating_point != mine.dtype.is_floating_point:
        raise Unsettable(f"{goal.what} is {mine.dtype} and its partner {goal.numbers.dtype}")
    numbers = goal.numbers.reshape(mine.shape)
    if settled.whole(name):
        if not torch.equal(target.trial[name], trial(numbers)):
            raise Unsettable(
                f"{goal.what} and {settled.by[name]} are one tensor of the target, and two of the network"
            )
        return
    if name not in target.kept and not torch.equal(trial(mine), trial(numbers)):
        raise Unsettable(f"{goal.what} holds other numbers, and it is no part of the target's state dict")
    target.trial[name] = trial(numbers)
    settled.add(name, goal)


def _make_norms_idle(target: Target, goals: Sequence[Goal], settled: _Settled) -> None:
    read = reading(target, goals)
    for norm in target.norms:
        names = norm.identity.keys()
        undecided = all(settled.mask(name) is None for name in names)
        if undecided and names <= read and names <= target.kept:
            for name, number in norm.identity.items():
                target.trial[name] = torch.full_like(trial(target.tensors[name]), number)


def reading(target: Target, goals: Iterable[Goal]) -> set[str]:
    """The tensors of the target that these are made of."""
    with target.watched() as read:
        for goal in goals:
            with suppress(Unsettable):
                goal.evaluate()
    return read


def _weights_of(target: Target, goal: Goal) -> set[str]:
    """The tensors of the target on which this depends and that can be set."""
    statistics = {name for norm in target.norms for name in norm.fixed}
    names = [
        name
        for name in sorted((reading(target, [goal]) - statistics) & target.kept)
        if target.tensors[name].is_floating_point()
    ]
    return {*_counting(target, goal, names)}


def _free(target: Target, goal: Goal, settled: _Settled) -> list[str]:
    return sorted(name for name in _weights_of(target, goal) if not settled.whole(name))


def _reach(target: Target, goal: Goal, settled: _Settled) -> None:
    norms = {name for norm in target.norms for name in norm.identity}
    made_of = sorted(_weights_of(target, goal))
    free = _free(target, goal, settled)
    free.sort(key=lambda n: (n in norms, abs(target.tensors[n].numel() - goal.numbers.numel())))
    if len(made_of) == len(free) == 1 and settled.mask(free[0]) is None:
        before = dict(target.trial)
        if whole_table(target, goal, free[0]):
            settled.add(free[0], goal)
            return
        target.trial.clear()
        target.trial.update(before)
    for name in free:
        before = dict(target.trial)
        others = [
            other for other in free if other != name and other not in norms and settled.mask(other) is None
        ]
        own, decided = settled.numbers(name), settled.mask(name)
        places = placed(target, goal, name, others, own, decided)
        if places is None:
            target.trial.clear()
            target.trial.update(before)
        if places is None and len(made_of) == 1:
            places = inverted(target, goal, name, own, decided)
        if places is not None:
            _decide(target, goal, name, free, settled, places)
            return
        target.trial.clear()
        target.trial.update(before)
    for name in free:
        if settled.mask(name) is None:
            before = dict(target.trial)
            others = [other for other in free if other != name and other not in norms]
            if combined(target, goal, name, [other for other in others if settled.mask(other) is None]):
                _decide(target, goal, name, free, settled)
                return
            target.trial.clear()
            target.trial.update(before)
    if not _is_reached(goal):
        of = ", ".join(made_of) or "nothing that could be set"
        taken = ", ".join(sorted({settled.by[n] for n in made_of if settled.mask(n) is not None}))
        raise Unsettable(
            f"{goal.what} is made of {of} in the target, and no numbers in one of these give what it has to "
            f"hold"
            f"{f' ({taken} has a part in them)' if taken else ''}"
        )


def _decide(
    target: Target,
    goal: Goal,
    name: str,
    free: Sequence[str],
    settled: _Settled,
    places: Tensor | None = None,
) -> None:
    """This goal was reached through these places of this tensor, with the others as they are on trial."""
    settled.add(name, goal, places)
    for other in _counting(target, goal, [other for other in free if other != name]):
        settled.add(other, goal)


def _counting(target: Target, goal: Goal, names: Iterable[str]) -> list[str]:
    """Those of these tensors on which the goal depends, with the numbers that are on trial."""
    counting: list[str] = []
    try:
        now = goal.evaluate()
    except Unsettable:
        return list(names)
    for name in names:
        kept = target.trial.get(name)
        numbers = trial(target.tensors[name]) if kept is None else kept
        target.trial[name] = 2.0 * numbers + 1.0
        try:
            if not torch.equal(goal.evaluate(), now):
                counting.append(name)
        except Unsettable:
            counting.append(name)
        if kept is None:
            del target.trial[name]
        else:
            target.trial[name] = kept
    return counting
