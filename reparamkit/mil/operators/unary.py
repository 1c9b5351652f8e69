"""Functions of one number, element by element.

    inverse  1 / (x + epsilon), epsilon 1e-4     log  log(x + epsilon), epsilon 1e-45
    rsqrt  1 / sqrt(x + epsilon), epsilon 1e-12  exp2  2^x
    round  to the nearest integer, halves to the even one
    clip  min(max(x, alpha), beta)               threshold  max(x, alpha)
    and abs, acos, asin, atan, atanh, ceil, cos, cosh, erf, exp, floor, logical_not, sign, sin, sinh, sqrt,
    square, tan, tanh as their names say.

Source: coremltools/converters/mil/mil/ops/defs/iOS15/elementwise_unary.py; from iOS 17 on epsilon, alpha and
beta may have types of their own.
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import Call, of_tensors, operator

_AS_IN_TORCH = """
abs acos asin atan atanh ceil cos cosh erf exp exp2 floor logical_not round sign sin sinh sqrt square tan tanh
"""

of_tensors("x", {name: getattr(torch, name) for name in _AS_IN_TORCH.split()})
of_tensors("x alpha", {"threshold": torch.maximum})


@operator("inverse", "x epsilon")
def inverse(call: Call) -> torch.Tensor:
    return torch.reciprocal(call.tensor("x") + call.number("epsilon", 1e-4))


@operator("log", "x epsilon")
def log(call: Call) -> torch.Tensor:
    return torch.log(call.tensor("x") + call.number("epsilon", 1e-45))


@operator("rsqrt", "x epsilon")
def rsqrt(call: Call) -> torch.Tensor:
    return torch.rsqrt(call.tensor("x") + call.number("epsilon", 1e-12))


@operator("clip", "x alpha beta")
def clip(call: Call) -> torch.Tensor:
    return call.tensor("x").clamp(call.number("alpha"), call.number("beta"))
