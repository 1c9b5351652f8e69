"""Average pooling, a depthwise convolution with the kernel 1/area.

Only where every window divides by the same number: not with `ceil_mode`, and not where padding is
left out of the count.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from reparamkit.algebra import AffineMap, geometry
from reparamkit.operators.base import Affine, Call, Meaning, NotAffine, Term, channel_count, reader
from reparamkit.operators.layout import spatial


@reader("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(call: Call) -> Meaning:
    """(N, C, *spatial)."""
    value = call.value("self")
    dims = int(call.target[len("aten.avg_pool")])
    window = call.ints("kernel_size", dims, 1)
    stride = window if not call.get("stride") else call.ints("stride", dims, 1)
    padding = call.ints("padding", dims, 0)
    excluded = any(padding) and not call.get("count_include_pad", True)
    if call.get("divisor_override") is None and (excluded or call.get("ceil_mode", False)):
        reason = "the pooling uses ceil_mode, so windows at the border cover fewer positions"
        if excluded:
            reason = "the pooling leaves its padding out of the average (count_include_pad=False)"
        elif any(padding):
            raise NotAffine(reason)
        return replace(spatial(value, dims, call.result.sizes), reason=reason)
    if call.get("ceil_mode", False):
        raise NotAffine("the pooling uses ceil_mode, so windows at the border cover fewer positions")
    divisor = call.get("divisor_override") or math.prod(window)
    channels = channel_count(value, dims)
    structure = geometry.convolution(
        channels, channels, channels, window, stride, (1,) * dims, padding, padding, has_bias=False
    )

    def load() -> AffineMap:
        kernel = torch.full((channels, 1, *window), 1.0 / divisor, dtype=torch.float64)
        return AffineMap(structure, kernel, None)

    keeps_constants = not any(padding) and divisor == math.prod(window)
    return Affine((Term(value, structure, load),), averages=keeps_constants)
