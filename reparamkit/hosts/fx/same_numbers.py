"""Whether two values of a graph are the same but for rounding, every channel by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from reparamkit.engine.relative_error import per_channel

_NOISE = 1e-12  # relative to what goes into a value


def excess(
    value: Tensor,
    expected: Tensor,
    bar: float,
    terms: Callable[[], Tensor | None],
    leeway: tuple[float, float] | None,
) -> str:
    """Empty, or by how much a value is off.

    `bar` is relative to the largest value of every channel, or to that of the `terms` that it is the sum of.
    `leeway`, where the expected value is not exact itself: what it may be off relative to its largest value,
    and the largest value that went into it.
    """
    if not expected.numel():
        return ""
    difference, size = _Magnitudes((value - expected).abs_()), _Magnitudes(expected.abs())
    if not math.isfinite(difference.largest):
        finite = expected.isfinite() & value.isfinite()
        rest = ~finite & ~((expected == value) | (expected.isnan() & value.isnan()))
        if bool(rest.any()):
            return "in which values are finite"
        expected, value = expected.where(finite, 0.0), value.where(finite, 0.0)
        difference, size = _Magnitudes((value - expected).abs_()), _Magnitudes(expected.abs())
    if difference.within(size, bar):
        return ""
    magnitude = terms()
    scale = size if magnitude is None else _Magnitudes(magnitude)
    inside = difference.within(scale, bar)
    if not inside and leeway is not None:  # where large terms cancel, the captured value itself is not exact
        rough, read = leeway
        inside = difference.largest <= rough * size.largest + _NOISE * max(size.largest, read)
    worst = difference.largest / max(scale.largest, 1e-300)
    return "" if inside else f"by {worst:.1e} of its terms, where {bar:.0e} is allowed"


class _Magnitudes:
    """Numbers of which none is negative: the largest, in all and of every channel along the likely axes."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self.largest = float(values.max())

    @cached_property
    def _channels(self) -> list[Tensor]:
        axes = [axis for axis in dict.fromkeys((1, self._values.ndim - 1)) if 0 < axis < self._values.ndim]
        return [per_channel(self._values, axis) for axis in axes]

    def within(self, size: _Magnitudes, bar: float) -> bool:
        """Whether they are at most this part of `size`, every channel by itself."""
        if not self.largest <= bar * size.largest:
            return False
        if all(self.largest <= bar * float(channels.min()) for channels in size._channels):
            return True  # the largest of all is small beside the smallest channel
        channels = zip(self._channels, size._channels, strict=True)
        return all(bool((a <= bar * b).all()) for a, b in channels)


def paired(mine: Any, theirs: Any) -> Iterator[tuple[Any, Any]]:
    """The leaves of two structures of arguments side by side; the structures where they differ."""
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple) and len(mine) == len(theirs):
        for a, b in zip(mine, theirs, strict=True):
            yield from paired(a, b)
    elif isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        for key, item in mine.items():
            yield from paired(item, theirs[key])
    else:
        yield mine, theirs


def largest(value: Any) -> float:
    """The largest magnitude among the finite numbers of a tensor; 0 for anything else."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return 0.0
    size = value.abs()
    most = float(size.amax())
    return most if math.isfinite(most) else float(size.nan_to_num(0.0, 0.0, 0.0).max())


def identical(a: Any, b: Any) -> bool:
    """Whether two values are the same to the last number, and lie alike."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return type(a) is type(b) and bool(a == b)


def positive(value: Any) -> Any:
    """The magnitudes of all finite numbers, 0 for the others."""
    if isinstance(value, list | tuple):
        return [positive(item) for item in value]
    return (
        value.abs().nan_to_num(0.0, 0.0, 0.0)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
    )
