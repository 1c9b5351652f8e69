"""avg_pool, max_pool and l2_pool over one to three spatial axes.

    avg_pool  the mean of each window; added elements count as zeros, or do not count at all with
              exclude_padding_from_average
    max_pool  the largest element of each window, added ones left out
    l2_pool   the root of the sum of squares of each window, as MPSCNNPoolingL2Norm has it (the MIL reference
              gives no formula)

With ceil_mode the last window may reach beyond the padding, as in PyTorch; what it finds there never counts,
and it is left out where it would start there.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/pool.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator
from reparamkit.mil.operators.windows import Pads, padded, paddings, spatial

_AVERAGE: dict[int, Callable[..., torch.Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST: dict[int, Callable[..., torch.Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_COMMON = "x kernel_sizes strides pad_type pad ceil_mode"


@operator("avg_pool", f"{_COMMON} exclude_padding_from_average")
def avg_pool(call: Call) -> torch.Tensor:
    x, kernel, strides, pads, beyond = _windows(call)
    average = _AVERAGE[len(kernel)]
    exclude = call.flag("exclude_padding_from_average", False)
    mean = average(padded(padded(x, pads), beyond), kernel, strides)
    if not any(map(any, beyond)) and not (exclude and any(map(any, pads))):
        return mean
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    counted = padded(padded(counted, pads, 0.0 if exclude else 1.0), beyond)
    share = average(counted, kernel, strides)
    # A window that lies in the padding alone has a share of 0.
    return mean / share.clamp(min=1.0 / math.prod(kernel))


@operator("max_pool", _COMMON)
def max_pool(call: Call) -> torch.Tensor:
    x, kernel, strides, pads, beyond = _windows(call)
    return _LARGEST[len(kernel)](padded(padded(x, pads, -math.inf), beyond, -math.inf), kernel, strides)


@operator("l2_pool", _COMMON)
def l2_pool(call: Call) -> torch.Tensor:
    x, kernel, strides, pads, beyond = _windows(call)
    mean = _AVERAGE[len(kernel)](padded(padded(x.square(), pads), beyond), kernel, strides)
    return torch.sqrt(mean * math.prod(kernel))


def _windows(call: Call) -> tuple[torch.Tensor, list[int], list[int], Pads, Pads]:
    """The input, the windows' sizes and steps, the padding, and how far ceil_mode reaches beyond it."""
    x = call.tensor("x")
    rank = x.dim() - 2
    if rank not in _AVERAGE:
        raise CannotEvaluate(f"has an input with {x.dim()} axes")
    kernel = spatial(call, "kernel_sizes", rank)
    strides = spatial(call, "strides", rank)
    kind = call.text("pad_type", "valid")
    pads = paddings(call, kind, x.shape[2:], kernel, strides)
    if not call.flag("ceil_mode", False):
        return x, kernel, strides, pads, [(0, 0)] * rank
    if kind.startswith("same") or any(before != after for before, after in pads):
        raise CannotEvaluate("has ceil_mode together with a padding that differs before and after")
    beyond = []
    for size, extent, stride, (before, after) in zip(x.shape[2:], kernel, strides, pads, strict=True):
        count = -((extent - size - before - after) // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        beyond.append((0, max(0, (count - 1) * stride + extent - size - before - after)))
    return x, kernel, strides, pads, beyond
