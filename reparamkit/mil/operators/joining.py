"""concat, stack and split.

    concat  along `axis`; with `interleave` one element of each in turn. Scalars become a vector
    stack   along a new axis
    split   into num_splits equal parts along `axis`, or into parts of split_sizes

Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_operation.py.
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, operator


@operator("concat", "values axis interleave")
def concat(call: Call) -> torch.Tensor:
    values = call.tensors("values")
    if values[0].dim() == 0:
        return torch.stack(values)
    axis = axis_of(call.integer("axis"), values[0].dim())
    if call.flag("interleave", False):
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operator("stack", "values axis")
def stack(call: Call) -> torch.Tensor:
    return torch.stack(call.tensors("values"), call.integer("axis"))


@operator("split", "x num_splits split_sizes axis")
def split(call: Call) -> list[torch.Tensor]:
    x, axis = call.tensor("x"), call.integer("axis")
    if call.has("split_sizes"):
        sizes = call.integers("split_sizes")
    else:
        count = call.integer("num_splits")
        if count < 1 or x.shape[axis] % count:
            raise CannotEvaluate(f"has {count} equal parts for an axis of {x.shape[axis]}")
        sizes = [x.shape[axis] // count] * count
    return list(torch.split_with_sizes(x, sizes, axis))
