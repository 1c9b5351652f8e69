"""How far two values of one region are apart, in all and in every channel by itself.

Beside a channel of scale 1e7, three channels of zeros differ from the right ones by 1e-7 of the whole: every
channel is held against its own scale. A channel in which large terms cancel is smaller than the rounding
errors of its terms; how large these are is seen where the same operators run in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

BAR = 1e-10
_EPS32 = torch.finfo(torch.float32).eps


def relative_error(
    expected: Tensor, actual: Tensor, axes: Iterable[int], rough: Callable[[], Tensor]
) -> float:
    """The largest error relative to the scale of the whole, and of each channel along each of the `axes`.

    Both tensors are float64. NaN or infinite where a value is not a finite number. `rough` computes
    `expected` once more in float32; it is only asked where a channel is off by more than `BAR` of its own
    largest value.
    """
    if not expected.numel():
        return 0.0
    difference, size = (actual - expected).abs(), expected.abs()
    error, scale = float(difference.max()), float(size.max())
    worst = error / scale if scale > 0 else error
    if not worst <= BAR:
        return worst
    for axis in set(axes):
        errors, scales = per_channel(difference, axis), per_channel(size, axis)
        ratios = _ratios(errors, scales)
        if float(ratios.max()) > BAR:
            noise = per_channel((rough().double() - expected).abs(), axis)
            terms = torch.nan_to_num(noise / _EPS32, nan=0.0, posinf=0.0)
            ratios = _ratios(errors, torch.maximum(scales, terms))
        worst = max(worst, float(ratios.max()))
    return worst


def per_channel(values: Tensor, axis: int) -> Tensor:
    """(channels,): the largest of the values of each channel along an axis; none may be negative."""
    others = [a for a in range(values.ndim) if a != axis % values.ndim]
    return values.amax(others) if others else values


def _ratios(errors: Tensor, scales: Tensor) -> Tensor:
    return torch.where(errors == 0.0, errors, errors / scales).nan_to_num(nan=math.inf)
