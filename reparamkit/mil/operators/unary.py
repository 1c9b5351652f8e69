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

from collections.abc import Callable

import torch

from reparamkit.mil.operators.base import Call, operator

_PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}


def _register(kind: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    @operator(kind, "x")
    def plain(call: Call) -> torch.Tensor:
        return function(call.tensor("x"))


for _kind, _function in _PLAIN.items():
    _register(_kind, _function)


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


@operator("threshold", "x alpha")
def threshold(call: Call) -> torch.Tensor:
    return torch.maximum(call.tensor("x"), call.tensor("alpha"))
