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
        differing: how many integers or booleans differ (0 for floating point).
        conflict: the first place where one is NaN or infinite and the other is not, or None.
    """

    max_abs: float
    index: tuple[int, ...]
    differing: int = 0
    conflict: tuple[int, ...] | None = None


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs on a new last axis; anything else as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def deviation(values: torch.Tensor, truth: torch.Tensor, undecided: torch.Tensor | None = None) -> Deviation:
    """Compare two tensors of one shape, in float64 or, for integers and booleans, exactly.

    NaN equals NaN and an infinity equals itself.
    `undecided` marks elements to leave out.
    """
    if truth.numel() == 0:
        return Deviation(0.0, ())
    if not truth.is_floating_point():
        differs = values != truth if undecided is None else (values != truth) & ~undecided
        count = int(differs.sum())
        return Deviation(float(count > 0), _first(differs), count)
    values, truth = values.double(), truth.double()
    finite = truth.isfinite() & values.isfinite()
    agreeing = finite | (values == truth) | (values.isnan() & truth.isnan())
    if not bool(agreeing.all()):
        place = _first(~agreeing)
        return Deviation(float("inf"), place, conflict=place)
    difference = torch.where(finite, (values - truth).abs_(), 0.0)
    return Deviation(float(difference.max()), _unravelled(int(difference.argmax()), truth.shape))


def _first(marks: torch.Tensor) -> tuple[int, ...]:
    """Where the first is that is true; the beginning where there is none."""
    return _unravelled(int(marks.to(torch.uint8).argmax()), marks.shape)


def _unravelled(place: int, shape: torch.Size) -> tuple[int, ...]:
    """The index along each axis of a flat position."""
    return tuple(map(int, np.unravel_index(place, shape)))


def magnitude(truth: torch.Tensor) -> float:
    """The largest finite magnitude, 0 where there is none."""
    if truth.numel() == 0 or not truth.is_floating_point():
        return 0.0
    return float(torch.where(truth.isfinite(), truth, 0.0).abs().max())


def value_at(tensor: torch.Tensor, index: tuple[int, ...]) -> float:
    """One element as a number; NaN for an empty tensor."""
    return float(tensor[index]) if tensor.numel() else float("nan")
