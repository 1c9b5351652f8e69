"""Windows of taps on a lattice, which maps that gather and maps that scatter have in common.

On every axis the taps lie at lo, lo + δ, …, lo + δ·(window - 1). What these positions are added to, and what
`stride` and `extent` mean, is for `Geometry` and `Transposed` to say. A sum needs the lattice that holds the
taps of all its parts; a composition needs the one that holds every tap of one map shifted by every tap of the
other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

Ints = tuple[int, ...]


class Inexact(Exception):
    """The sum or composition asked for is not one affine map of this kind; the message says why."""


@dataclass(frozen=True)
class Windowed:
    """What is known of a map along spatial axes; kernel shape (outputs, inputs // groups, *window)."""

    inputs: int
    outputs: int
    groups: int
    window: Ints
    stride: Ints
    dilation: Ints
    lo: Ints
    extent: Ints
    has_bias: bool
    unit: bool = False
    """Promises a kernel of ones: values are moved, not multiplied."""

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.window)

    @cached_property
    def span(self) -> Ints:
        """Positions from the first tap to the last, both counted, on every axis."""
        return tuple(d * (w - 1) + 1 for d, w in zip(self.dilation, self.window, strict=True))

    @property
    def channelwise(self) -> bool:
        """Whether channel c of the output depends on channel c of the input only."""
        return self.groups == self.inputs == self.outputs

    @cached_property
    def weights(self) -> int:
        """Elements of the kernel."""
        return self.outputs * (self.inputs // self.groups) * math.prod(self.window)


def union(parts: Sequence[Windowed]) -> tuple[Ints, Ints, Ints]:
    """(lo, dilation, window) of the smallest lattice that holds the taps of all parts."""
    lo, dilation, window = [], [], []
    for axis in range(parts[0].dims):
        low = min(p.lo[axis] for p in parts)
        high = max(p.lo[axis] + p.span[axis] for p in parts) - 1
        step = 0
        for p in parts:
            step = math.gcd(step, p.lo[axis] - low)
            if p.window[axis] > 1:
                step = math.gcd(step, p.dilation[axis])
        step = step or 1
        lo.append(low)
        dilation.append(step)
        window.append((high - low) // step + 1)
    return tuple(lo), tuple(dilation), tuple(window)


def chained(hop: Ints, window: Ints, other_hop: Ints, other: Ints) -> tuple[Ints, Ints]:
    """(dilation, window) of all sums of a tap of `window`, `hop` apart, and a tap of `other`."""
    taps = list(zip(hop, window, other_hop, other, strict=True))
    step = tuple(math.gcd(h if w > 1 else 0, k if v > 1 else 0) or 1 for h, w, k, v in taps)
    reach = (h * (w - 1) + k * (v - 1) for h, w, k, v in taps)
    return step, tuple(r // s + 1 for r, s in zip(reach, step, strict=True))


def offsets(part: Windowed, whole: Windowed) -> tuple[Ints, Ints]:
    """Where the taps of `part` lie in the window of `whole`: (first index, index step) per axis."""
    first = tuple((p - w) // d for p, w, d in zip(part.lo, whole.lo, whole.dilation, strict=True))
    step = tuple(
        p // w if n > 1 else 1 for p, w, n in zip(part.dilation, whole.dilation, part.window, strict=True)
    )
    return first, step
