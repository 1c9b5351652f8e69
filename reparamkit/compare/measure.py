"""The distance between two tensors, and what makes a distance meaningless."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Deviation:
    """How far one tensor is from another of the same shape.

    Attributes:
        max_abs: largest absolute difference over the compared elements; 1 where integers differ.
        index: where.
        compared: how many elements were compared: finite in both and decided.
        differing: how many integers or booleans differ (0 for floating point).
        conflict: the first place where one is NaN or infinite and the other is not, or None.
    """

    max_abs: float
    index: tuple[int, ...]
    compared: int
    differing: int = 0
    conflict: tuple[int, ...] | None = None


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs on a new last axis; anything else as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def deviation(values: torch.Tensor, truth: torch.Tensor, undecided: torch.Tensor | None = None) -> Deviation:
    """Compare two tensors of one shape, in float64 or, for integers and booleans, exactly.

    NaN equals NaN and an infinity equals itself; such elements count as agreeing but not as compared.
    `undecided` marks elements to leave out.
    """
    if truth.is_floating_point():
        return _float_deviation(values.double(), truth.double())
    differs = values != truth
    if undecided is not None:
        differs = differs & ~undecided
    left_out = 0 if undecided is None else int(undecided.sum())
    count = int(differs.sum())
    if truth.numel() == 0:
        return Deviation(0.0, (), 0)
    index = _unravelled(int(differs.flatten().to(torch.uint8).argmax()), truth.shape)
    return Deviation(float(count > 0), index, truth.numel() - left_out, differing=count)


def _float_deviation(values: torch.Tensor, truth: torch.Tensor) -> Deviation:
    if truth.numel() == 0:
        return Deviation(0.0, (), 0)
    finite = truth.isfinite() & values.isfinite()
    agreeing = finite | (values == truth) | (values.isnan() & truth.isnan())
    if not bool(agreeing.all()):
        place = int((~agreeing).flatten().to(torch.uint8).argmax())
        return Deviation(
            float("inf"), _unravelled(place, truth.shape), 0, conflict=_unravelled(place, truth.shape)
        )
    difference = torch.where(finite, (values - truth).abs_(), 0.0).flatten()
    place = int(difference.argmax())
    return Deviation(float(difference[place]), _unravelled(place, truth.shape), int(finite.sum()))


def magnitude(truth: torch.Tensor) -> float:
    """The largest finite magnitude, 0 where there is none."""
    if truth.numel() == 0 or not truth.is_floating_point():
        return 0.0
    return float(torch.where(truth.isfinite(), truth, 0.0).abs().max())


def _unravelled(place: int, shape: torch.Size) -> tuple[int, ...]:
    """The index along each axis of a flat position."""
    return tuple(map(int, np.unravel_index(place, shape)))


def value_at(tensor: torch.Tensor, index: tuple[int, ...]) -> float:
    """One element as a number; NaN for an empty tensor."""
    return float(tensor[index]) if tensor.numel() else float("nan")
