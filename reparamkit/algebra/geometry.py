"""The shape of an affine map on a feature map, without its numbers.

An affine map with `d` spatial axes (d = 0: a linear layer on the last axis; 1, 2, 3: convolutions) is

    y[o, i] = b[o] + sum over c, t of  K[o, c, t] · x[c, s·i + lo + δ·t]        (x is zero outside its domain)

with stride `s`, dilation `δ`, `lo` the offset of the first tap and `extent` E, which fixes the length

    len(y) = floor((n + E - 1) / s) + 1        for an input of length n, on every axis.

For a padded convolution: lo = -(padding on the near side), E = total padding - (span - 1), where
span = δ·(window - 1) + 1; so the padding on the far side is E + lo + span - 1, and the identity has
lo = E = 0. Pad and crop are maps with a one-tap window and E ≠ 0. Transposed convolutions are maps of another
kind, `Transposed`; those of stride 1 are convolutions.

`Geometry` answers what a sum or a composition of two maps looks like, and whether it is exact, from
integers alone: planning a network costs no tensor arithmetic. `Scalar` is y = α·x + β on a tensor of
any layout; it takes on the layout of whatever it meets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

from reparamkit.algebra import transposed
from reparamkit.algebra.transposed import Transposed
from reparamkit.algebra.windows import Inexact, Ints, Windowed, chained, union


@dataclass(frozen=True, slots=True)
class Scalar:
    """y = α·x + β with the same two numbers everywhere; `identity` promises α = 1, β = 0."""

    has_bias: bool = False
    identity: bool = False


@dataclass(frozen=True)
class Geometry(Windowed):
    """Structure of one affine map; kernel shape (outputs, inputs // groups, *window)."""

    @cached_property
    def near(self) -> Ints:
        """Zero padding before the first position of every axis (negative: a crop)."""
        return tuple(-lo for lo in self.lo)

    @cached_property
    def far(self) -> Ints:
        """Zero padding after the last position of every axis (negative: a crop)."""
        return tuple(e + lo + n - 1 for e, lo, n in zip(self.extent, self.lo, self.span, strict=True))

    @cached_property
    def pointwise(self) -> bool:
        """Whether every output position depends on the input at that same position only."""
        return (
            all(w == 1 for w in self.window)
            and all(s == 1 for s in self.stride)
            and not any(self.lo)
            and not any(self.extent)
        )

    @cached_property
    def per_channel(self) -> bool:
        """Whether it is no more than a scale and shift per channel."""
        return self.channelwise and self.pointwise

    def length_in(self, axis: int, length_out: int, slack: int = 0) -> int:
        """The shortest input (plus `slack` < stride) that gives `length_out` on this axis."""
        return self.stride[axis] * (length_out - 1) + 1 - self.extent[axis] + slack


Map = Geometry | Transposed | Scalar
W = TypeVar("W", Geometry, Transposed)
_REMEMBERED = 4096  # the blocks of a network are much alike


@lru_cache(maxsize=_REMEMBERED)
def pointwise(inputs: int, outputs: int, groups: int, dims: int, *, has_bias: bool) -> Geometry:
    """A one-tap map without padding."""
    ones, zeros = (1,) * dims, (0,) * dims
    return Geometry(inputs, outputs, groups, ones, ones, ones, zeros, zeros, has_bias)


def channelwise(channels: int, dims: int, *, has_bias: bool) -> Geometry:
    """A scale (and shift) per channel."""
    return pointwise(channels, channels, channels, dims, has_bias=has_bias)


@lru_cache(maxsize=_REMEMBERED)
def convolution(
    inputs: int,
    outputs: int,
    groups: int,
    window: Ints,
    stride: Ints,
    dilation: Ints,
    near: Ints,
    far: Ints,
    *,
    has_bias: bool,
) -> Geometry:
    """The map of a convolution from its usual attributes; `near` and `far` are paddings per axis."""
    dilation = tuple(d if w > 1 else 1 for d, w in zip(dilation, window, strict=True))
    extent = tuple(p + q - d * (w - 1) for p, q, d, w in zip(near, far, dilation, window, strict=True))
    lo = tuple(-p for p in near)
    return Geometry(inputs, outputs, groups, window, stride, dilation, lo, extent, has_bias)


@lru_cache(maxsize=_REMEMBERED)
def with_numbers(structure: W, *, has_bias: bool) -> W:
    """The same structure for a kernel that need not be one of ones."""
    return replace(structure, has_bias=has_bias, unit=False)


@lru_cache(maxsize=_REMEMBERED)
def compose(after: Map, before: Map) -> Map:
    """The structure of `after ∘ before`.

    Exact only if `after` never reads outside the output of `before`, or `before`, evaluated out
    there by its own formula, is zero. Raises `Inexact` with the reason otherwise.
    """
    if isinstance(after, Scalar):
        if isinstance(before, Scalar):
            return Scalar(after.has_bias or before.has_bias, after.identity and before.identity)
        return replace(
            before, has_bias=before.has_bias or after.has_bias, unit=before.unit and after.identity
        )
    if isinstance(before, Scalar):
        if before.has_bias:
            _require_inside(after, "a constant shift")
        return replace(after, has_bias=after.has_bias or before.has_bias, unit=after.unit and before.identity)
    if after.dims != before.dims:
        raise Inexact("the two work along different axes of the tensor")
    if after.inputs != before.outputs:
        raise Inexact(f"channel counts differ ({before.outputs} and {after.inputs})")
    if before.has_bias:
        _require_inside(after, "a per-channel shift")
    if isinstance(after, Transposed) or isinstance(before, Transposed):
        return transposed.compose(scattered(after), scattered(before))
    _require_zero_outside(after, before)

    dilation, window = chained(*hops(after, before))
    return Geometry(
        inputs=before.inputs,
        outputs=after.outputs,
        groups=math.gcd(after.groups, before.groups),
        window=window,
        stride=tuple(s * t for s, t in zip(after.stride, before.stride, strict=True)),
        dilation=dilation,
        lo=tuple(s * b + a for s, b, a in zip(before.stride, after.lo, before.lo, strict=True)),
        extent=tuple(a + s * b for s, b, a in zip(before.stride, after.extent, before.extent, strict=True)),
        has_bias=after.has_bias or before.has_bias,
        unit=after.unit and before.unit,
    )


def hops(after: Geometry, before: Geometry) -> tuple[Ints, Ints, Ints, Ints]:
    """How far apart the taps of either come to lie in `after ∘ before`, each with its window."""
    spread = tuple(s * d for s, d in zip(before.stride, after.dilation, strict=True))
    return spread, after.window, before.dilation, before.window


@lru_cache(maxsize=_REMEMBERED)
def add(a: Map, b: Map) -> Map:
    """The structure of a + b, two maps of the same source. Raises `Inexact` with the reason."""
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return Scalar(a.has_bias or b.has_bias)
    if isinstance(a, Scalar):
        assert not isinstance(b, Scalar)
        return add(promote(a, b), b)
    if isinstance(b, Scalar):
        return add(a, promote(b, a))
    if a.dims != b.dims:
        raise Inexact("the branches work along different axes of the tensor")
    if (a.inputs, a.outputs) != (b.inputs, b.outputs):
        raise Inexact("the sum broadcasts over channels")
    groups = math.gcd(a.groups, b.groups)
    if isinstance(a, Geometry) and isinstance(b, Geometry):
        return _united([a, b], a.outputs, groups)
    return _united([scattered(a), scattered(b)], a.outputs, groups)


def stack(parts: Sequence[Geometry | Transposed]) -> Geometry | Transposed:
    """The structure of a channel concatenation of maps of the same source. Raises `Inexact`."""
    first = parts[0]
    if any(p.dims != first.dims or p.inputs != first.inputs for p in parts):
        raise Inexact("the branches work along different axes of the tensor")
    outputs = sum(p.outputs for p in parts)
    gathering = [p for p in parts if isinstance(p, Geometry)]
    if len(gathering) == len(parts):
        return _united(gathering, outputs, 1)
    return _united([scattered(p) for p in parts], outputs, 1)


def scattered(g: Geometry | Transposed) -> Transposed:
    """A map of stride 1 with its kernel turned around and written as one that scatters. Raises `Inexact`."""
    if isinstance(g, Transposed):
        return g
    if any(s > 1 for s in g.stride):
        raise Inexact(
            f"a layer with stride {list(g.stride)} skips positions between those of a transposed one"
        )
    return Transposed(
        g.inputs, g.outputs, g.groups, g.window, g.stride, g.dilation, _turned(g), g.extent, g.has_bias
    )


def gathered(t: Transposed) -> Geometry:
    """The same, back: a scattering map of stride 1 as a convolution."""
    assert all(s == 1 for s in t.stride)
    return Geometry(
        t.inputs, t.outputs, t.groups, t.window, t.stride, t.dilation, _turned(t), t.extent, t.has_bias
    )


def _turned(m: Windowed) -> Ints:
    return tuple(1 - lo - n for lo, n in zip(m.lo, m.span, strict=True))


def promote(scalar: Scalar, like: Windowed) -> Geometry:
    """The scalar map written as a per-channel map that can be added to `like`."""
    if like.inputs != like.outputs:
        raise Inexact("the sum broadcasts over channels")
    return channelwise(like.outputs, like.dims, has_bias=scalar.has_bias)


def _united(parts: Sequence[W], outputs: int, groups: int) -> W:
    first = parts[0]
    if any(p.stride != first.stride for p in parts):
        raise Inexact(f"the branches have different strides ({_several(p.stride for p in parts)})")
    if any(p.extent != first.extent for p in parts):
        raise Inexact("the branches give different output sizes for some input sizes")
    lo, dilation, window = union(parts)
    return replace(
        first,
        outputs=outputs,
        groups=groups,
        window=window,
        dilation=dilation,
        lo=lo,
        has_bias=any(p.has_bias for p in parts),
        unit=False,
    )


def _several(items: object) -> str:
    return " and ".join(sorted({str(list(i)) for i in items}))  # type: ignore[attr-defined]


def _require_inside(after: Geometry | Transposed, shift: str) -> None:
    if isinstance(after, Transposed):
        raise Inexact(
            f"{shift} before a transposed convolution with stride {list(after.stride)}: every output is "
            "reached by other taps than its neighbours, so the shift behind it is not the same everywhere"
        )
    if any(p > 0 for p in after.near) or any(p > 0 for p in after.far):
        raise Inexact(
            f"{shift} before zero padding: the padded border stays zero, "
            "while the shift would reach it in a folded kernel"
        )


def _require_zero_outside(after: Geometry, before: Geometry) -> None:
    for axis in range(after.dims):
        lo, span, stride = before.lo[axis], before.span[axis], before.stride[axis]
        near_nonzero = after.near[axis] > 0 and lo + span > stride
        far_nonzero = after.far[axis] > 0 and before.extent[axis] + lo < 0
        if near_nonzero or far_nonzero:
            if before.window[axis] == 1:
                raise Inexact("zero padding after a crop: the cropped values would come back at the border")
            raise Inexact(
                "zero padding between two windows: the second pads the output of the first with zeros, "
                "which one wider kernel would not"
            )
