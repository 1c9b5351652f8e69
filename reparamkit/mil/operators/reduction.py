"""Reductions over `axes` (all), whose axes stay with length 1 where keep_dims says so.

    reduce_sum, reduce_mean, reduce_prod, reduce_max, reduce_min
    reduce_l1_norm  sum of |x|               reduce_l2_norm  root of the sum of x²
    reduce_sum_square  sum of x²             reduce_log_sum  log of the sum
    reduce_log_sum_exp  log of the sum of exp(x)
    reduce_argmax, reduce_argmin  the index of the largest and smallest element along `axis` (-1); of equal
                                  ones
                    the first (the reference leaves that open)

Of integers, a result that is not whole is rounded towards zero.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/reduction.py; iOS 17 adds `output_dtype`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from reparamkit.mil.operators.base import Call, axis_of, operator

_Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in reversed(axes):
        x = torch.prod(x, axis, keepdim=keep)
    return x


_REDUCTIONS: dict[str, _Reduce] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: torch.amax(x, axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: torch.amin(x, axes, keepdim=keep),
    "reduce_prod": _product,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


def _register(kind: str, function: _Reduce) -> None:
    @operator(kind, "x axes keep_dims")
    def reduce(call: Call) -> torch.Tensor:
        x = call.tensor("x")
        whole = not x.is_floating_point()
        axes = sorted({axis_of(axis, x.dim()) for axis in call.integers("axes", range(x.dim()))})
        y = function(x.double() if whole else x, axes, call.flag("keep_dims", False)) if axes else x
        return y.to(x.dtype) if whole else y


for _kind, _function in _REDUCTIONS.items():
    _register(_kind, _function)


@operator("reduce_argmax", "x axis keep_dims output_dtype")
def argmax(call: Call) -> torch.Tensor:
    return torch.argmax(call.tensor("x"), call.integer("axis", -1), call.flag("keep_dims", False))


@operator("reduce_argmin", "x axis keep_dims output_dtype")
def argmin(call: Call) -> torch.Tensor:
    return torch.argmin(call.tensor("x"), call.integer("axis", -1), call.flag("keep_dims", False))
