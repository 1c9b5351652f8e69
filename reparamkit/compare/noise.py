"""How far two runs of one output are apart: as a whole, and at each index along each of its axes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PerAxis = tuple[torch.Tensor | None, ...]
"""For each axis one number per index along it, float64; None for an axis of length 0 or 1."""


@dataclass(frozen=True)
class Noise:
    """How far one run of an output is from another: largest absolute distance, of all and along each axis."""

    whole: float = 0.0
    along: PerAxis = ()

    def joined(self, other: Noise) -> Noise:
        """The larger of both, everywhere."""
        whole = max(self.whole, other.whole)
        if len(self.along) != len(other.along):
            return Noise(whole, self.along or other.along)
        return Noise(whole, tuple(map(_larger, self.along, other.along)))

    def times(self, ratio: float) -> Noise:
        """All of it multiplied by a number."""
        along = tuple(None if values is None else values * ratio for values in self.along)
        return Noise(self.whole * ratio, along)


def _larger(left: torch.Tensor | None, right: torch.Tensor | None) -> torch.Tensor | None:
    if left is None or right is None or left.shape != right.shape:
        return None
    return torch.maximum(left, right)


def peaks(magnitudes: torch.Tensor) -> PerAxis:
    """The largest entry at each index along each axis of a tensor without negative entries."""
    if magnitudes.numel() == 0:
        return (None,) * magnitudes.ndim
    largest: list[torch.Tensor | None] = []
    for axis, length in enumerate(magnitudes.shape):
        others = [other for other in range(magnitudes.ndim) if other != axis]
        largest.append(None if length < 2 else magnitudes.amax(others) if others else magnitudes)
    return tuple(largest)


def distances(values: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """|values − truth| in float64; 0 where either is not finite."""
    both = values.isfinite() & truth.isfinite()
    return (values.double() - truth.double()).abs_().where(both, 0.0)


def noise_between(values: torch.Tensor, truth: torch.Tensor) -> Noise:
    """The distance between two runs of one output; none where they are integers or of other shapes."""
    if not (values.is_floating_point() and truth.is_floating_point()) or values.shape != truth.shape:
        return Noise()
    apart = distances(values, truth)
    return Noise(float(apart.max()) if apart.numel() else 0.0, peaks(apart))


def scale_along(values: torch.Tensor) -> PerAxis:
    """The largest finite magnitude at each index along each axis of a floating-point output."""
    return peaks(values.abs().where(values.isfinite(), 0.0))
