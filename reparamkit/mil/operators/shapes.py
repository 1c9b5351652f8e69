"""Operators that make tensors out of settings, or shapes out of tensors.

    shape     the lengths of x's axes         range_1d  start, start + step, … below end
    fill      `shape`, all `value` (0)        fill_like  the shape of ref_tensor, all `value` (0)
    non_zero  the places of elements other than 0, one row for each
    cast      to `dtype`; fractions are cut off, and a boolean says whether a number is other than 0
    classify  the probabilities as they are, without the labels

Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_operation.py, elementwise_unary.py (cast),
classify.py, iOS16/tensor_operation.py (fill_like).
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, of_tensors, operator
from reparamkit.mil.types import BY_NAME

of_tensors(
    "x", {"shape": lambda x: torch.tensor(list(x.shape), dtype=torch.int32), "non_zero": torch.nonzero}
)
of_tensors("probabilities", {"classify": lambda probabilities: probabilities})


@operator("range_1d", "start end step")
def range_1d(call: Call) -> torch.Tensor:
    bounds = [call.tensor(name) for name in ("start", "end", "step")]
    if any(bound.is_floating_point() for bound in bounds):
        return torch.arange(*(call.number(name) for name in ("start", "end", "step")), dtype=call.floating)
    return torch.arange(*(call.integer(name) for name in ("start", "end", "step")), dtype=torch.int32)


@operator("fill", "shape value")
def fill(call: Call) -> torch.Tensor:
    return _value(call).expand(call.integers("shape"))


@operator("fill_like", "ref_tensor value")
def fill_like(call: Call) -> torch.Tensor:
    return _value(call).expand(call.tensor("ref_tensor").shape)


@operator("cast", "x dtype")
def cast(call: Call) -> torch.Tensor:
    x, kind = call.tensor("x"), BY_NAME.get(call.text("dtype"))
    if kind is None or kind.dtype is None or kind.dtype is not call.operation.outputs[0].dtype:
        raise CannotEvaluate(f"has the dtype {call.text('dtype')!r}, which is not that of its output")
    # A floating-point result is rounded with every other operation's, afterwards.
    return x.to(call.floating if kind.dtype.is_floating_point else kind.dtype)


def _value(call: Call) -> torch.Tensor:
    if call.has("value"):
        return call.tensor("value").reshape(())
    return torch.zeros((), dtype=call.floating)
