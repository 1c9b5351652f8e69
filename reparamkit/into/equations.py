"""Numbers in one tensor of the target under which a layer that is made of it holds what it has to hold.

A folded layer is a function of several tensors of the target, affine in each one of them:

    layer(w) = C + A · w        A places each number of w in the layer, times a factor; C is all else

A and C are read off four numberings of w, and the last of them shows that there is nothing else: w then
follows from the layer. Where two layers in a row fold to one (two convolutions, a norm's bias in front of a
layer without one), a number of the layer is a sum over many of w, by rows or columns:

    layer(w) = C + w · M        or        layer(w) = C + M · w

M is what the other layer gives: its own numbers where they are decided, else those that pass its input on.
Where these equations have solutions, the smallest is taken; each of them makes the same layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reparamkit.into.target import Evaluate, Target, Unsettable

_NONE = 1e-9  # of the largest: a number that does not depend on w
_EXACT = 1e-6
_STEP = 1e-5
_ITERATIONS = 60
_PLAIN = 1.375  # no map is the identity or nothing with it
_MOST_EQUATIONS = 20_000_000  # numbers in the matrix of a system: 160 MB


@dataclass(frozen=True)
class Chosen:
    """A table of the folded network of which a layer holds some numbers, at these flat places, in order."""

    table: Tensor
    places: Tensor


@dataclass(frozen=True, eq=False)
class Goal:
    """A tensor of the folded target with the numbers that it has to hold, and where these come from."""

    what: str
    evaluate: Evaluate
    own: str | None
    """The tensor of the target that it is, as it is."""
    numbers: Tensor
    chosen: Chosen | None = None
    """What the numbers were chosen out of, where the network holds more of them."""


def chosen_from(table: Tensor, evaluate: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The flat places of a table whose numbers a layer holds, in order; None where it is made otherwise."""
    ranks = torch.arange(table.numel(), dtype=torch.float64).reshape(table.shape)
    try:
        first, second = (trial(evaluate(numbers)).flatten() for numbers in (ranks, 2.0 * ranks + 1.0))
    except (RuntimeError, TypeError, Unsettable):
        return None
    places = first.round().long()
    same = torch.equal(first, places.double()) and torch.equal(second, 2.0 * first + 1.0)
    return places if same else None


def whole_table(target: Target, goal: Goal, name: str) -> bool:
    """Whether this tensor and the table of the network are chosen from alike; all of it is then on trial.

    What the example does not reach is then the network's as well.
    """
    if goal.chosen is None or target.tensors[name].shape != goal.chosen.table.shape:
        return False

    def at(numbers: Tensor) -> Tensor:
        target.trial[name] = numbers
        return goal.evaluate()

    places = chosen_from(target.tensors[name], at)
    if places is None or not torch.equal(places, goal.chosen.places):
        return False
    return close(at(trial(goal.chosen.table)), goal.numbers)


def placed(
    target: Target, goal: Goal, name: str, others: Sequence[str], own: Tensor, decided: Tensor | None
) -> Tensor | None:
    """The places in this tensor whose numbers give the goal; all numbers are then on trial.

    None where there are no such numbers, or where they are not those that are decided already.
    """
    shape, count = target.tensors[name].shape, target.tensors[name].numel()

    def at(numbers: Tensor) -> Tensor:
        target.trial[name] = numbers.reshape(shape)
        return goal.evaluate().flatten()

    one = torch.full((count,), _PLAIN, dtype=torch.float64)
    own = own.flatten()
    try:
        for other in others:
            kept = target.trial.get(other)
            like = trial(target.tensors[other])
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
        if not close(at(drawn), expected):
            return None
        wanted = goal.numbers.detach().cpu().double().flatten()
        numbers = own.clone()
        numbers[place[hit]] = ((wanted - rest) / safe)[hit]
        if decided is not None and not close(numbers[decided], own[decided]):
            return None
        return place[hit] if close(at(numbers), wanted) else None
    except Unsettable:
        return None


def combined(target: Target, goal: Goal, name: str, others: Sequence[str]) -> bool:
    """Whether numbers that are in many of the goal's each reach it; they are then on trial.

    The others of two or more axes pass on what they are given.
    """
    shape = target.tensors[name].shape
    wanted = trial(goal.numbers)
    for other in others:
        if target.tensors[other].ndim > 1:
            target.trial[other] = _passing_on(target.tensors[other])
    axes = [a for a in range(min(len(shape), wanted.ndim, 2)) if 0 < shape[a] == wanted.shape[a]]
    for axis in axes if len(shape) > 1 else [None]:
        rows = 1 if axis is None else shape[axis]
        width = math.prod(shape) // max(rows, 1)
        if not width or width * wanted.numel() // max(rows, 1) > _MOST_EQUATIONS:
            continue

        def at(numbers: Tensor, axis: int | None = axis) -> Tensor:
            first = axis or 0
            moved = [shape[first], *shape[:first], *shape[first + 1 :]]
            target.trial[name] = numbers.reshape(moved).movedim(0, first).contiguous()
            return _rows(goal.evaluate(), axis)

        try:
            rest = at(torch.zeros(rows, width, dtype=torch.float64))
            # Each row shows one row of the matrix; which of them shows it must not matter.
            units = torch.eye(rows, width, dtype=torch.float64)
            matrix = torch.cat(
                [(at(units.roll(start, 1)) - rest)[: width - start] for start in range(0, width, rows)]
            )
            drawn = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            if not close(at(drawn), rest + drawn @ matrix):
                continue
            missing = (_rows(wanted, axis) - rest).t()
            solution = torch.linalg.lstsq(matrix.t(), missing, driver="gelsd").solution.t()
            if close(at(solution), _rows(wanted, axis)):
                return True
        except Unsettable:
            continue
    return False


def _rows(tensor: Tensor, axis: int | None) -> Tensor:
    """All that has the same place along an axis as a row; all of the tensor as one without an axis."""
    tensor = trial(tensor)
    return tensor.reshape(1, -1) if axis is None else tensor.movedim(axis, 0).flatten(1)


def _passing_on(tensor: Tensor) -> Tensor:
    """The numbers of a kernel, or a matrix, that gives each output one of the inputs."""
    kernel = torch.zeros(tensor.shape, dtype=torch.float64)
    centre = [size // 2 for size in tensor.shape[2:]]
    for row in range(tensor.shape[0]):
        kernel[(row, row % tensor.shape[1], *centre)] = 1.0
    return kernel


def inverted(target: Target, goal: Goal, name: str, own: Tensor, decided: Tensor | None) -> Tensor | None:
    """The same as `placed` where each number follows from one of the tensor's by some function (a sigmoid).

    By Newton's method, each number for itself.
    """
    shape, count = target.tensors[name].shape, target.tensors[name].numel()
    own = own.flatten()
    wanted = trial(goal.numbers).flatten()

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
        if decided is not None and not close(numbers[decided], own[decided]):
            return None
        return place if close(at(numbers), wanted) else None
    except Unsettable:
        return None


def trial(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor


def close(left: Tensor, right: Tensor) -> bool:
    left, right = trial(left).flatten(), trial(right).flatten()
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if not left.is_floating_point():
        return torch.equal(left, right)
    scale = max(float(right.abs().max()), float(left.abs().max())) if right.numel() else 0.0
    return bool(((left - right).abs() <= _EXACT * scale).all())
