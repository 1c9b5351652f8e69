"""The shape of an affine map on a feature map, without its numbers.

An affine map with `d` spatial axes (d = 0: a linear layer on the last axis; 1, 2, 3: convolutions) is

    y[o, i] = b[o] + sum over c, t of  K[o, c, t] · x[c, s·i + lo + δ·t]        (x is zero outside its domain)

with stride `s`, dilation `δ`, `lo` the offset of the first tap and `extent` E, which fixes the length

    len(y) = floor((n + E - 1) / s) + 1        for an input of length n, on every axis.

For a padded convolution: lo = -(padding on the near side), E = total padding - (span - 1), where
span = δ·(window - 1) + 1; so the padding on the far side is E + lo + span - 1, and the identity has
lo = E = 0. Pad and crop are maps with a one-tap window and E ≠ 0.

`Geometry` answers what a sum or a composition of two maps looks like, and whether it is exact, from
integers alone: planning a network costs no tensor arithmetic. `Scalar` is y = α·x + β on a tensor of
any layout; it takes on the layout of whatever it meets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Ints = tuple[int, ...]


class Inexact(Exception):
    """The sum or composition asked for is not one affine map of this kind; the message says why."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """y = α·x + β with the same two numbers everywhere; `identity` promises α = 1, β = 0."""

    has_bias: bool = False
    identity: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """Structure of one affine map; kernel shape (outputs, inputs // groups, *window)."""

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

    @property
    def span(self) -> Ints:
        """Positions from the first tap to the last, both counted, on every axis."""
        return tuple(d * (w - 1) + 1 for d, w in zip(self.dilation, self.window, strict=True))

    @property
    def near(self) -> Ints:
        """Zero padding before the first position of every axis (negative: a crop)."""
        return tuple(-lo for lo in self.lo)

    @property
    def far(self) -> Ints:
        """Zero padding after the last position of every axis (negative: a crop)."""
        return tuple(e + lo + n - 1 for e, lo, n in zip(self.extent, self.lo, self.span, strict=True))

    @property
    def pointwise(self) -> bool:
        """Whether every output position depends on the input at that same position only."""
        return (
            all(w == 1 for w in self.window)
            and all(s == 1 for s in self.stride)
            and not any(self.lo)
            and not any(self.extent)
        )

    @property
    def channelwise(self) -> bool:
        """Whether channel c of the output depends on channel c of the input only."""
        return self.groups == self.inputs == self.outputs

    @property
    def per_channel(self) -> bool:
        """Whether it is no more than a scale and shift per channel."""
        return self.channelwise and self.pointwise

    @property
    def weights(self) -> int:
        """Elements of the kernel."""
        return self.outputs * (self.inputs // self.groups) * math.prod(self.window)

    def length_in(self, axis: int, length_out: int, slack: int = 0) -> int:
        """The shortest input (plus `slack` < stride) that gives `length_out` on this axis."""
        return self.stride[axis] * (length_out - 1) + 1 - self.extent[axis] + slack


Map = Geometry | Scalar


def pointwise(inputs: int, outputs: int, groups: int, dims: int, *, has_bias: bool) -> Geometry:
    """A one-tap map without padding."""
    ones, zeros = (1,) * dims, (0,) * dims
    return Geometry(inputs, outputs, groups, ones, ones, ones, zeros, zeros, has_bias)


def channelwise(channels: int, dims: int, *, has_bias: bool) -> Geometry:
    """A scale (and shift) per channel."""
    return pointwise(channels, channels, channels, dims, has_bias=has_bias)


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
    _require_zero_outside(after, before)

    step = tuple(
        _step((s * d if w > 1 else 0), (e if v > 1 else 0))
        for s, d, w, e, v in zip(
            before.stride, after.dilation, after.window, before.dilation, before.window, strict=True
        )
    )
    reach = tuple(
        s * d * (w - 1) + e * (v - 1)
        for s, d, w, e, v in zip(
            before.stride, after.dilation, after.window, before.dilation, before.window, strict=True
        )
    )
    return Geometry(
        inputs=before.inputs,
        outputs=after.outputs,
        groups=math.gcd(after.groups, before.groups),
        window=tuple(r // g + 1 for r, g in zip(reach, step, strict=True)),
        stride=tuple(s * t for s, t in zip(after.stride, before.stride, strict=True)),
        dilation=step,
        lo=tuple(s * b + a for s, b, a in zip(before.stride, after.lo, before.lo, strict=True)),
        extent=tuple(a + s * b for s, b, a in zip(before.stride, after.extent, before.extent, strict=True)),
        has_bias=after.has_bias or before.has_bias,
        unit=after.unit and before.unit,
    )


def add(a: Map, b: Map) -> Map:
    """The structure of a + b, two maps of the same source. Raises `Inexact` with the reason."""
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return Scalar(a.has_bias or b.has_bias)
    if isinstance(a, Scalar):
        assert isinstance(b, Geometry)
        return add(promote(a, b), b)
    if isinstance(b, Scalar):
        return add(a, promote(b, a))
    if a.dims != b.dims:
        raise Inexact("the branches work along different axes of the tensor")
    if (a.inputs, a.outputs) != (b.inputs, b.outputs):
        raise Inexact("the sum broadcasts over channels")
    return _united([a, b], a.outputs, math.gcd(a.groups, b.groups))


def stack(parts: list[Geometry]) -> Geometry:
    """The structure of a channel concatenation of maps of the same source. Raises `Inexact`."""
    first = parts[0]
    if any(p.dims != first.dims or p.inputs != first.inputs for p in parts):
        raise Inexact("the branches work along different axes of the tensor")
    return _united(parts, sum(p.outputs for p in parts), 1)


def promote(scalar: Scalar, like: Geometry) -> Geometry:
    """The scalar map written as a per-channel map that can be added to `like`."""
    if like.inputs != like.outputs:
        raise Inexact("the sum broadcasts over channels")
    return channelwise(like.outputs, like.dims, has_bias=scalar.has_bias)


def offsets(part: Geometry, whole: Geometry) -> tuple[Ints, Ints]:
    """Where the taps of `part` lie in the window of `whole`: (first index, index step) per axis."""
    first = tuple((p - w) // d for p, w, d in zip(part.lo, whole.lo, whole.dilation, strict=True))
    step = tuple(
        p // w if n > 1 else 1 for p, w, n in zip(part.dilation, whole.dilation, part.window, strict=True)
    )
    return first, step


def _united(parts: list[Geometry], outputs: int, groups: int) -> Geometry:
    first = parts[0]
    if any(p.stride != first.stride for p in parts):
        raise Inexact(f"the branches have different strides ({_several(p.stride for p in parts)})")
    if any(p.extent != first.extent for p in parts):
        raise Inexact("the branches give different output sizes for some input sizes")
    lo, window, dilation = [], [], []
    for axis in range(first.dims):
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
    return Geometry(
        first.inputs,
        outputs,
        groups,
        tuple(window),
        first.stride,
        tuple(dilation),
        tuple(lo),
        first.extent,
        any(p.has_bias for p in parts),
    )


def _step(a: int, b: int) -> int:
    return math.gcd(a, b) or 1


def _several(items: object) -> str:
    return " and ".join(sorted({str(list(i)) for i in items}))  # type: ignore[attr-defined]


def _require_inside(after: Geometry, shift: str) -> None:
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
