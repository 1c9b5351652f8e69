"""The shapes that probes take in space: what each is made to show.

Unit patterns; the probe scales them to the input that they stand for.

    normal         independent zero-mean normal values: everything
    large, tiny    the same, 32 times larger and 1024 times smaller: clamps and saturations; biases, epsilons
    constant       one value everywhere, positive or negative: sums of kernels, and what padding does to them
    checkerboard   +1 and -1 by turns along the last two axes: strides, offsets by one, parities
    impulse        zero but for one place: the kernel itself, at each corner (padding) and in the centre

An impulse has a random value for each sample and channel, so that channels that were swapped show.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

NORMAL, LARGE, TINY, CONSTANT, NEGATIVE = "normal", "large", "tiny", "constant", "negative constant"
CHECKERBOARD, IMPULSES, IMPULSE = "checkerboard", "impulses", "impulse "

LARGE_FACTOR = 32.0
TINY_FACTOR = 1 / 1024
IMPULSE_FACTOR = 8.0

_CENTRE = 0.5
_TWO_AXES: dict[tuple[float, ...], str] = {
    (0.0, 0.0): "top left",
    (0.0, 1.0): "top right",
    (1.0, 0.0): "bottom left",
}


def impulses(axes: int) -> dict[str, tuple[float, ...]]:
    """The places of single impulses, by pattern, as fractions of the length of `axes` spatial axes."""
    corners = list(itertools.product((0.0, 1.0), repeat=axes))
    if axes > 2:
        corners = [corners[0], corners[-1]]
    names = {**_TWO_AXES, (1.0, 1.0): "bottom right"} if axes == 2 else {}
    named = {
        names.get(corner, "at the start" if not any(corner) else "at the end"): corner for corner in corners
    }
    return {f"{IMPULSE}{name}": place for name, place in {**named, "centre": (_CENTRE,) * axes}.items()}


def spatial_axes(shape: list[int]) -> int:
    """How many of the last axes are places rather than samples or channels: all but two, or the last one."""
    return max(len(shape) - 2, 0) if len(shape) > 2 else min(len(shape), 1)


def pattern(name: str, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """A unit pattern of this shape in float64, on the CPU; any other name is that of normal values."""
    if name == CONSTANT:
        return torch.ones(shape, dtype=torch.float64)
    if name == NEGATIVE:
        return -torch.ones(shape, dtype=torch.float64)
    if name == CHECKERBOARD:
        return checkerboard(shape)
    if name == IMPULSES:
        places = [(place,) * spatial_axes(shape) for place in (0.0, _CENTRE, 1.0)]
        return _impulses_at(places, shape, generator)
    if name.startswith(IMPULSE):
        known = impulses(spatial_axes(shape))
        # Of several inputs each has its own number of axes; the centre is everywhere.
        return _impulses_at([known.get(name, known[f"{IMPULSE}centre"])], shape, generator)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return values * {LARGE: LARGE_FACTOR, TINY: TINY_FACTOR}.get(name, 1.0)


def checkerboard(shape: list[int]) -> torch.Tensor:
    """+1 and -1 by turns along the last two of the spatial axes."""
    values = torch.ones(shape, dtype=torch.float64)
    for axis in range(len(shape) - min(spatial_axes(shape), 2), len(shape)):
        signs = 1.0 - 2.0 * (torch.arange(shape[axis], dtype=torch.float64) % 2)
        values = values * signs.reshape([-1] + [1] * (len(shape) - axis - 1))
    return values


def _impulses_at(
    places: list[tuple[float, ...]], shape: list[int], generator: torch.Generator
) -> torch.Tensor:
    values = torch.zeros(shape, dtype=torch.float64)
    if 0 in shape or not shape:
        return values
    kept = len(shape) - spatial_axes(shape)
    for place in places:
        sizes = zip(place, shape[kept:], strict=True)
        where: tuple[Any, ...] = (..., *(round(part * (size - 1)) for part, size in sizes))
        drawn = torch.randn(shape[:kept], generator=generator, dtype=torch.float64)
        values[where] = drawn * IMPULSE_FACTOR
    return values
