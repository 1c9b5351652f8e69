"""Maps that scatter: transposed convolutions, without their numbers.

Where a convolution gathers, y[i] from x[s·i + lo + δ·t], its transpose scatters every input to several
outputs:

    y[o, j] = b[o] + sum over c, i, t with s·i + lo + δ·t = j of  K[o, c, t] · x[c, i]
    len(y)  = s·(n - 1) + 1 + E                         for an input of length n, on every axis

For torch's attributes: lo = -padding, E = δ·(window - 1) - 2·padding + output_padding. The kernel is
written as that of a convolution, (outputs, inputs // groups, *window), while torch's weight is (inputs,
outputs // groups, *window).

    B ∘ A:  s = s_B·s_A,  lo = s_B·lo_A + lo_B,  E = s_B·E_A + E_B,  taps at s_B·δ_A·u + δ_B·t
    A + B:  of the same s and E: the union of the windows

A convolution of stride 1 scatters too, by its kernel turned around (lo is then -(lo + span - 1), E the same),
so these two lines also say what a convolution before or behind a transposed one gives. The sum is always
exact. The composition is, unless A cuts off values at its border that B would carry back into the output. A
constant shift before B is never one behind it: with s > 1, outputs that differ modulo s are reached by
different taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from reparamkit.algebra.windows import Inexact, Ints, Windowed, chained


@dataclass(frozen=True)
class Transposed(Windowed):
    """Structure of one scattering map; the stride is above 1 on some axis, or it would be a `Geometry`."""

    @property
    def padding(self) -> Ints:
        """Outputs cut off before the first position of every axis (negative: added)."""
        return tuple(-lo for lo in self.lo)

    @property
    def output_padding(self) -> Ints:
        """How many fewer are cut off behind the last position than before the first."""
        return tuple(e - 2 * lo - n + 1 for e, lo, n in zip(self.extent, self.lo, self.span, strict=True))

    @property
    def per_channel(self) -> bool:
        """Whether it is no more than a scale and shift per channel: never, positions are spread out."""
        return False

    def length_in(self, axis: int, length_out: int) -> int | None:
        """The input length that gives `length_out` on this axis; None if there is none."""
        steps, rest = divmod(length_out - 1 - self.extent[axis], self.stride[axis])
        return None if rest or steps < 0 else steps + 1


def transposed(
    inputs: int,
    outputs: int,
    groups: int,
    window: Ints,
    stride: Ints,
    dilation: Ints,
    padding: Ints,
    output_padding: Ints,
    *,
    has_bias: bool,
) -> Transposed:
    """The map of a transposed convolution from its usual attributes."""
    dilation = tuple(d if w > 1 else 1 for d, w in zip(dilation, window, strict=True))
    extent = tuple(
        d * (w - 1) - 2 * p + q for d, w, p, q in zip(dilation, window, padding, output_padding, strict=True)
    )
    lo = tuple(-p for p in padding)
    return Transposed(inputs, outputs, groups, window, stride, dilation, lo, extent, has_bias)


def compose(after: Transposed, before: Transposed) -> Transposed:
    """The structure of `after ∘ before`, of whose shift the caller has taken care. Raises `Inexact`."""
    _require_nothing_lost(after, before)
    dilation, window = chained(*hops(after, before))
    strides = list(zip(after.stride, before.stride, strict=True))
    return Transposed(
        inputs=before.inputs,
        outputs=after.outputs,
        groups=math.gcd(after.groups, before.groups),
        window=window,
        stride=tuple(s * t for s, t in strides),
        dilation=dilation,
        lo=tuple(s * b + a for (s, _), a, b in zip(strides, after.lo, before.lo, strict=True)),
        extent=tuple(s * b + a for (s, _), a, b in zip(strides, after.extent, before.extent, strict=True)),
        has_bias=after.has_bias or before.has_bias,
    )


def hops(after: Transposed, before: Transposed) -> tuple[Ints, Ints, Ints, Ints]:
    """How far apart the taps of either come to lie in `after ∘ before`, each with its window."""
    spread = tuple(s * d for s, d in zip(after.stride, before.dilation, strict=True))
    return after.dilation, after.window, spread, before.window


def realisable(t: Transposed) -> Transposed:
    """The same map as torch can state it: 0 <= padding, 0 <= output_padding < max(stride, dilation).

    Where that is not so already, taps of zero are added to the window.
    """
    lo, window = list(t.lo), list(t.window)
    for axis, (s, d) in enumerate(zip(t.stride, t.dilation, strict=True)):
        before = max(0, _ceil(lo[axis], d), _ceil(-t.output_padding[axis], d))
        surplus = t.output_padding[axis] + before * d - max(s, d) + 1
        lo[axis] -= before * d
        window[axis] += before + max(0, _ceil(surplus, d))
    return replace(t, lo=tuple(lo), window=tuple(window))


def exchanged(kernel: Tensor, groups: int) -> Tensor:
    """(outputs, inputs // groups, *window) from (inputs, outputs // groups, *window), or back."""
    first, second, window = kernel.shape[0], kernel.shape[1], kernel.shape[2:]
    blocks = kernel.reshape(groups, first // groups, second, *window).transpose(1, 2)
    return blocks.reshape(groups * second, first // groups, *window)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _require_nothing_lost(after: Transposed, before: Transposed) -> None:
    for axis in range(after.dims):
        near = before.lo[axis] < 0 and after.lo[axis] + after.span[axis] > after.stride[axis]
        cut = before.lo[axis] + before.span[axis] - 1 - before.extent[axis]
        far = cut > 0 and after.lo[axis] + after.stride[axis] <= after.extent[axis]
        if not near and not far:
            continue
        if before.window[axis] == 1 and before.stride[axis] == 1:
            raise Inexact(
                "a crop before a transposed convolution: the cropped values would come back at the border"
            )
        if all(s == 1 for s in after.stride):
            raise Inexact(
                "zero padding behind a transposed convolution that ends inside its windows: the second pads "
                "with zeros, where one wider kernel would go on"
            )
        raise Inexact(
            "a transposed convolution behind a window that reaches over the border: the first ends there, "
            "while one wider kernel would go on"
        )
