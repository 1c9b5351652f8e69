"""Numbers for the target's own weights under which its folded layers hold what those of the network hold.

A folded layer is a function of several tensors of the target, affine in each one of them:

    layer(w) = C + A · w        A places each number of w in the layer, times a factor; C is all else

What the target's own numbers give already stays as it is. Elsewhere batch norms become the identity first.
Then one tensor w takes the numbers, where the others are zero if the layer depends on w without them (a
branch beside it), and one if not (a scale behind it). A and C are read off four numberings of w, and the last
of them shows that there is nothing else: w then follows from the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from reparamkit.into.target import Evaluate, Target, Unsettable

_NONE = 1e-9  # of the largest: a number that does not depend on w
_EXACT = 1e-6
_STEP = 1e-5
_ITERATIONS = 60
_PLAIN = 1.375  # no map is the identity or nothing with it
_ULPS = 4.0


@dataclass(frozen=True, eq=False)
class Goal:
    """A tensor of the folded target with the numbers that it has to hold, and where these come from."""

    what: str
    evaluate: Evaluate
    own: str | None
    """The tensor of the target that it is, as it is."""
    numbers: Tensor


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
        return self._target.trial.get(name, _trial(self._own.get(name, self._target.tensors[name])))

    def whole(self, name: str) -> bool:
        """Whether all numbers of a tensor are."""
        mask = self._masks.get(name)
        return mask is not None and bool(mask.all())


def settle(target: Target, goals: Iterable[Goal], own: Mapping[str, Tensor]) -> None:
    """Put into `target.trial` what its weights have to be.

    Args:
        own: the target's own numbers, which need not be those that it was captured with. Goals that they
            reach keep them, so that what no example shows of a tensor (rows of a table) stays as well.

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
                _settle(target, ordered, kept, own)
                return
            except Unsettable:
                target.trial.clear()
    _settle(target, ordered, [], own)


def _reached_by(target: Target, goals: Sequence[Goal], own: Mapping[str, Tensor]) -> list[Goal]:
    """The goals that hold their numbers with those of `own`, each to within rounding of its own."""
    target.trial.update({name: _trial(own[name]) for name in own.keys() & target.tensors.keys()})
    reached = [goal for goal in goals if _rounds_to(goal)]
    target.trial.clear()
    return reached


def _rounds_to(goal: Goal) -> bool:
    try:
        now = _trial(goal.evaluate()).flatten()
    except Unsettable:
        return False
    wanted = _trial(goal.numbers).flatten()
    if now.dtype != wanted.dtype or now.shape != wanted.shape:
        return False
    if not now.is_floating_point():
        return torch.equal(now, wanted)
    eps = torch.finfo(goal.numbers.dtype).eps
    return bool(((now - wanted).abs() <= _ULPS * eps * torch.maximum(now.abs(), wanted.abs())).all())


def _settle(
    target: Target, ordered: Sequence[Goal], reached: Sequence[Goal], own: Mapping[str, Tensor]
) -> None:
    settled = _Settled(target, own)
    of_reached = {
        goal: sorted(reading(target, [goal]) & own.keys() & target.tensors.keys()) for goal in reached
    }
    target.trial.update({name: _trial(own[name]) for names in of_reached.values() for name in names})
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


def _is_reached(goal: Goal) -> bool:
    try:
        return _close(goal.evaluate(), goal.numbers)
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
        if not torch.equal(target.trial[name], _trial(numbers)):
            raise Unsettable(
                f"{goal.what} and {settled.by[name]} are one tensor of the target, and two of the network"
            )
        return
    if name not in target.kept and not torch.equal(_trial(mine), _trial(numbers)):
        raise Unsettable(f"{goal.what} holds other numbers, and it is no part of the target's state dict")
    target.trial[name] = _trial(numbers)
    settled.add(name, goal)


def _make_norms_idle(target: Target, goals: Sequence[Goal], settled: _Settled) -> None:
    read = reading(target, goals)
    for norm in target.norms:
        names = norm.identity.keys()
        undecided = all(settled.mask(name) is None for name in names)
        if undecided and names <= read and names <= target.kept:
            for name, number in norm.identity.items():
                target.trial[name] = torch.full_like(_trial(target.tensors[name]), number)


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
    for name in free:
        before = dict(target.trial)
        others = [
            other for other in free if other != name and other not in norms and settled.mask(other) is None
        ]
        places = _solved(target, goal, name, others, settled)
        if places is None:
            target.trial.clear()
            target.trial.update(before)
        if places is None and len(made_of) == 1:
            places = _inverted(target, goal, name, settled)
        if places is not None:
            settled.add(name, goal, places)
            for other in _counting(target, goal, [other for other in free if other != name]):
                settled.add(other, goal)
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


def _counting(target: Target, goal: Goal, names: Iterable[str]) -> list[str]:
    """Those of these tensors on which the goal depends, with the numbers that are on trial."""
    counting: list[str] = []
    try:
        now = goal.evaluate()
    except Unsettable:
        return list(names)
    for name in names:
        kept = target.trial.get(name)
        numbers = _trial(target.tensors[name]) if kept is None else kept
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


def _solved(target: Target, goal: Goal, name: str, others: Sequence[str], settled: _Settled) -> Tensor | None:
    """The places in this tensor whose numbers give the goal; all numbers are then on trial.

    None where there are no such numbers, or where they are not those that are decided already.
    """
    decided = settled.mask(name)
    shape, count = target.tensors[name].shape, target.tensors[name].numel()

    def at(numbers: Tensor) -> Tensor:
        target.trial[name] = numbers.reshape(shape)
        return goal.evaluate().flatten()

    one = torch.full((count,), _PLAIN, dtype=torch.float64)
    own = settled.numbers(name).flatten().clone()
    try:
        for other in others:
            kept = target.trial.get(other)
            like = _trial(target.tensors[other])
            before = at(2 * one) - at(one)
            target.trial[other] = torch.zeros_like(like)
            if bool(((at(2 * one) - at(one) != 0) != (before != 0)).any()) or not bool(before.any()):
                target.trial[other] = torch.ones_like(like)
                if not bool((at(2 * one) - at(one)).any()):
                    target.trial.pop(other)
                    if kept is not None:
                        target.trial[other] = kept
        factor = (at(2 * one) - at(one)) / _PLAIN
        rest = 2 * at(one) - at(2 * one)
        hit = factor.abs() > _NONE * factor.abs().max()
        if not bool(hit.any()):
            return None
        safe = torch.where(hit, factor, torch.ones_like(factor))
        ranks = torch.arange(count, dtype=torch.float64)
        place = ((at(ranks + _PLAIN) - rest) / safe - _PLAIN).round().long()
        if bool(((place < 0) | (place >= count))[hit].any()):
            return None
        drawn = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = rest + torch.where(hit, factor * drawn[place.clamp(0, count - 1)], 0.0)
        if not _close(at(drawn), expected):
            return None
        wanted = goal.numbers.detach().cpu().double().flatten()
        numbers = own.clone()
        numbers[place[hit]] = ((wanted - rest) / safe)[hit]
        if decided is not None and not _close(numbers[decided], own[decided]):
            return None
        return place[hit] if _close(at(numbers), wanted) else None
    except Unsettable:
        return None


def _inverted(target: Target, goal: Goal, name: str, settled: _Settled) -> Tensor | None:
    """The same as `_solved` where each number follows from one of the tensor's by some function (a sigmoid).

    By Newton's method, each number for itself.
    """
    shape, count = target.tensors[name].shape, target.tensors[name].numel()
    own, decided = settled.numbers(name).flatten().clone(), settled.mask(name)
    wanted = _trial(goal.numbers).flatten()

    def at(numbers: Tensor) -> Tensor:
        target.trial[name] = numbers.reshape(shape)
        return goal.evaluate().flatten()

    def slope(numbers: Tensor, along: Tensor) -> Tensor:
        return (at(numbers + _STEP * along) - at(numbers - _STEP * along)) / (2 * _STEP)

    try:
        ranks = torch.arange(count, dtype=torch.float64) + 1.0
        steepness = slope(own, torch.ones_like(own))
        along = slope(own, ranks / count)
        hit = steepness.abs() > _NONE * steepness.abs().max()
        safe = torch.where(hit, steepness, torch.ones_like(steepness))
        place = (along / safe * count - 1.0).round().long()
        if not bool(hit.any()) or bool(((place < 0) | (place >= count))[hit].any()):
            return None
        place = place[hit]
        numbers = own.clone()
        for _ in range(_ITERATIONS):
            steepness = slope(numbers, torch.ones_like(own))[hit]
            step = (at(numbers)[hit] - wanted[hit]) / steepness
            if not bool(step.isfinite().all()):
                return None
            numbers[place] -= step.clamp(-1.0, 1.0)
        if decided is not None and not _close(numbers[decided], own[decided]):
            return None
        return place if _close(at(numbers), wanted) else None
    except Unsettable:
        return None


def _trial(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor


def _close(left: Tensor, right: Tensor) -> bool:
    left, right = _trial(left).flatten(), _trial(right).flatten()
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if not left.is_floating_point():
        return torch.equal(left, right)
    scale = max(float(right.abs().max()), float(left.abs().max())) if right.numel() else 0.0
    return bool(((left - right).abs() <= _EXACT * scale).all())
