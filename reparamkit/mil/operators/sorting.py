"""Order and running sums along an axis.

    argsort  the indices that sort x along `axis` (-1), the largest first unless `ascending`
    topk     the `k` (1; -1 for all) first values in that order, and their indices unless return_indices is
             false; with sort false their order is left open, and the sorted one is given
    cumsum   running sums along `axis` (0); `exclusive` leaves the element itself out, `reverse` starts at the
             end

Of equal values the first comes first, which the reference leaves open.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_operation.py, iOS16 and iOS17 for topk.
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import Call, operator


@operator("argsort", "x axis ascending")
def argsort(call: Call) -> torch.Tensor:
    return _sorted(call)[1]


@operator("topk", "x k axis ascending sort return_indices output_indices_dtype")
def topk(call: Call) -> list[torch.Tensor]:
    values, indices = _sorted(call)
    axis, count = call.integer("axis", -1), call.integer("k", 1)
    count = values.shape[axis] if count == -1 else count
    sorted_pair = [values.narrow(axis, 0, count), indices.narrow(axis, 0, count)]
    return sorted_pair if call.flag("return_indices", True) else sorted_pair[:1]


@operator("cumsum", "x axis exclusive reverse")
def cumsum(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 0)
    backwards = call.flag("reverse", False)
    values = x.flip(axis) if backwards else x
    y = values.cumsum(axis)
    if call.flag("exclusive", False):
        first = torch.zeros_like(y.narrow(axis, 0, 1))
        y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return y.flip(axis) if backwards else y


def _sorted(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    descending = not call.flag("ascending", False)
    values, indices = torch.sort(
        call.tensor("x"), dim=call.integer("axis", -1), descending=descending, stable=True
    )
    return values, indices
