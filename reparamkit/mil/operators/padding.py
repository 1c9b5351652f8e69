"""pad: elements around the last axes.

`pad` holds (before, after) for each of the last axes. What is added is constant_val (0), or with mode
"reflect" the elements inside in reverse order without the outermost, or with "replicate" the outermost.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_operation.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator


@operator("pad", "x pad mode constant_val")
def pad(call: Call) -> torch.Tensor:
    x, flat, mode = call.tensor("x"), call.integers("pad"), call.text("mode", "constant")
    pads = list(zip(flat[::2], flat[1::2], strict=True))
    if len(pads) > x.dim() or min(flat, default=0) < 0:
        raise CannotEvaluate(f"has the pad {flat} for an input with {x.dim()} axes")
    if mode == "constant":
        reverse = [number for before, after in reversed(pads) for number in (before, after)]
        return F.pad(x, reverse, value=call.number("constant_val", 0.0))
    if mode not in ("reflect", "replicate"):
        raise CannotEvaluate(f"has the unknown mode {mode!r}")
    for axis, (before, after) in enumerate(pads, start=x.dim() - len(pads)):
        size = x.shape[axis]
        places = torch.arange(-before, size + after)
        if mode == "reflect":
            if max(before, after) >= size:
                raise CannotEvaluate(f"reflects {max(before, after)} elements of an axis of {size}")
            places = (size - 1) - ((size - 1) - places.abs()).abs()
        if before or after:
            x = x.index_select(axis, places.clamp(0, size - 1))
    return x
