"""Numbers for the target's own weights under which its folded layers hold what those of the network hold.

A folded layer is a function of several tensors of the target, affine in each one of them:

    layer(w) = C + A · w        A places each number of w in the layer, times a factor; C is all else

Batch norms become the identity first. Then one tensor w takes the numbers, where the others are zero if the
layer depends on w without them (a branch beside it), and one if not (a scale behind it). A and C are read off
four numberings of w, and the last of them shows that there is nothing else: w then follows from the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reparamkit.into.flow import Value
from reparamkit.into.target import Evaluate, Target, Unsettable

_NONE = 1e-9  # of the largest: a number that does not depend on w
_EXACT = 1e-6


@dataclass(frozen=True)
class Goal:
    """A tensor of the folded target with the numbers that it has to hold, and where these come from."""

    what: str
    evaluate: Evaluate
    own: str | None
    """The tensor of the target that it is, as it is."""
    numbers: Tensor


def settle(target: Target, goals: Iterable[Goal]) -> None:
    """Put into `target.trial` what its weights have to be.

    Raises:
        Unsettable: no numbers reach a goal, or two goals ask for different ones, by name.
    """
    ordered = sorted(goals, key=lambda goal: (goal.own is None, -goal.numbers.squeeze().ndim))
    reached: dict[str, str] = {}
    for goal in (goal for goal in ordered if goal.own is not None):
        _copy(target, goal, reached)
    made_of = [goal for goal in ordered if goal.own is None]
    _make_norms_idle(target, made_of, reached)
    for goal in made_of:
        _reach(target, goal, reached)
    for goal in ordered:
        if not _close(goal.evaluate(), goal.numbers):
            raise Unsettable(f"{goal.what} shares its weights with other layers that ask for other numbers")


def _copy(target: Target, goal: Goal, reached: dict[str, str]) -> None:
    name = goal.own
    assert name is not None
    mine = target.tensors[name]
    if goal.numbers.dtype.is_floating_point != mine.dtype.is_floating_point:
        raise Unsettable(f"{goal.what} is {mine.dtype} and its partner {goal.numbers.dtype}")
    numbers = goal.numbers.reshape(mine.shape)
    if name in reached:
        if not torch.equal(target.trial[name], _trial(numbers)):
            raise Unsettable(f"{goal.what} and {reached[name]} are one tensor of the target, and two here")
        return
    if name not in target.kept and not torch.equal(_trial(mine.detach().cpu()), _trial(numbers)):
        raise Unsettable(f"{goal.what} holds other numbers, and it is no part of the target's state dict")
    target.trial[name] = _trial(numbers)
    reached[name] = goal.what


def _make_norms_idle(target: Target, goals: Sequence[Goal], reached: dict[str, str]) -> None:
    with target.watched() as read:
        for goal in goals:
            goal.evaluate()
    for norm in target.norms:
        if norm.identity.keys() <= read - reached.keys() and norm.identity.keys() <= target.kept:
            for name, number in norm.identity.items():
                target.trial[name] = torch.full_like(_trial(target.tensors[name].cpu()), number)


def _reach(target: Target, goal: Goal, reached: dict[str, str]) -> None:
    with target.watched() as read:
        now = goal.evaluate()
    if now.numel() != goal.numbers.numel():
        raise Unsettable(f"{goal.what} has {list(now.shape)} numbers, its partner {list(goal.numbers.shape)}")
    norms = {name for norm in target.norms for name in norm.identity}
    statistics = {name for norm in target.norms for name in norm.fixed}
    free = [
        name
        for name in sorted(read - reached.keys() - statistics)
        if name in target.kept and target.tensors[name].is_floating_point()
    ]
    free.sort(key=lambda n: (n in norms, abs(target.tensors[n].numel() - goal.numbers.numel())))
    for name in free:
        before = dict(target.trial)
        others = [other for other in free if other != name and other not in norms]
        if _solved(target, goal, name, others):
            reached[name] = goal.what
            return
        target.trial.clear()
        target.trial.update(before)
    if not _close(now, goal.numbers):
        of = ", ".join(free) or "nothing that could be set"
        raise Unsettable(
            f"{goal.what} is made of {of} in the target, and no numbers in one of these give what it has to hold"
        )


def _solved(target: Target, goal: Goal, name: str, others: Sequence[str]) -> bool:
    """Whether numbers for this tensor give the goal; they are then on trial, with those of the others."""
    shape, count = target.tensors[name].shape, target.tensors[name].numel()

    def at(numbers: Tensor) -> Tensor:
        target.trial[name] = numbers.reshape(shape)
        return goal.evaluate().flatten()

    one = torch.ones(count, dtype=torch.float64)
    try:
        for other in others:
            kept = target.trial.get(other)
            like = _trial(target.tensors[other].detach().cpu())
            before = at(2 * one) - at(one)
            target.trial[other] = torch.zeros_like(like)
            if bool(((at(2 * one) - at(one) != 0) != (before != 0)).any()) or not bool(before.any()):
                target.trial[other] = torch.ones_like(like)
                if not bool((at(2 * one) - at(one)).any()):
                    target.trial.pop(other)
                    if kept is not None:
                        target.trial[other] = kept
        factor = at(2 * one) - at(one)
        rest = at(one) - factor
        hit = factor.abs() > _NONE * factor.abs().max()
        if not bool(hit.any()):
            return False
        safe = torch.where(hit, factor, torch.ones_like(factor))
        ranks = torch.arange(1, count + 1, dtype=torch.float64)
        place = ((at(ranks) - rest) / safe).round().long() - 1
        if bool(((place < 0) | (place >= count))[hit].any()):
            return False
        drawn = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = rest + torch.where(hit, factor * drawn[place.clamp(0, count - 1)], 0.0)
        if not _close(at(drawn), expected):
            return False
        wanted = goal.numbers.detach().cpu().double().flatten()
        numbers = _trial(target.tensors[name].detach().cpu()).flatten().clone()
        numbers[place[hit]] = ((wanted - rest) / safe)[hit]
        return _close(at(numbers), wanted)
    except Unsettable:
        return False


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


__all__ = ["Goal", "Value", "settle"]
