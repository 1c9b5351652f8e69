"""A network whose long sums are added up in another order: one term after the other.

No standard says in what order a mean adds up its terms. torch adds blocks of blocks, so that the sum of n
terms is hardly off at all; another back end may go through them in turn, which is as right. With u = eps / 2,
a sum of n terms of one sign is then off by about

    sqrt(n) / 3 · u        of itself, as each of n partial sums, of a share k / n, is rounded once.

The largest of many such errors is three times that, and comes to the floor of the budget, 8 eps = 16 u, at
n = 256: sums of that many terms and more are added up so here, in the network's own precision. Vectorised
loops have several such sums side by side, one for each lane of a register, and add these up at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

LONG = 256
"""The number of terms from which the order of a sum shows."""

_PRECISIONS = (torch.float32, torch.float64)
aten = torch.ops.aten


class SumInTurn(TorchDispatchMode):
    """Within it, sums of many terms (of means, variances, averages, softmaxes) take one after the other.

    Args:
        lanes: how many sums are side by side, of every so many-th term each.
        of_variances: the same for the sums in variances, for which back ends have loops of their own.

    Attributes:
        terms: how many terms the longest such sum had; 0 as long as there was none.
    """

    def __init__(self, lanes: int = 1, of_variances: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lanes, self._of_variances = lanes, of_variances
        self.terms = self._sums = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, torch.Tensor) and first.dtype in _PRECISIONS:
            result = self._in_turn(func, args, kwargs)
            if result is not None:
                return result
        return func(*args, **kwargs)

    def _in_turn(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator gives where its sums are taken in turn; None where it has no long ones."""
        if func in _IN_TURN:
            names = [argument.name for argument in func._schema.arguments]
            return _IN_TURN[func](self, **dict(zip(names, args, strict=False)), **kwargs)
        taken_apart = _TAKEN_APART.get(func)
        # Of batch norms only those with statistics of their input have sums, as instance norm has them.
        if taken_apart is None or (func is aten.native_batch_norm.default and args[3] is not None):
            return None
        before = self._sums
        with self:
            result = taken_apart(*args, **kwargs)
        return result if self._sums > before else None

    def total(
        self, values: torch.Tensor, axes: Sequence[int], *, of_variance: bool = False
    ) -> torch.Tensor | None:
        """The sum over these axes, which stay with length 1; None where it is not a long one."""
        lanes = self._of_variances if of_variance else self._lanes
        axes = [axis % values.ndim for axis in axes]
        count = math.prod(values.shape[axis] for axis in axes)
        if count < LONG or not values.numel() or values.device.type != "cpu":
            return None
        self.terms = max(self.terms, count)
        self._sums += 1
        kept = [1 if axis in axes else size for axis, size in enumerate(values.shape)]
        others = [axis for axis in range(values.ndim) if axis not in axes]
        rows = values.detach().permute(*axes, *others).reshape(count, -1).numpy()
        whole = count - count % lanes
        totals = _in_turn(rows[:whole].reshape(-1, lanes, rows.shape[1]))
        return torch.from_numpy(_in_turn(np.concatenate([totals, rows[whole:]]))).reshape(kept)


def _in_turn(terms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The sum over the first axis."""
    total: np.ndarray[Any, Any] = terms[0].copy()
    for term in terms[1:]:
        np.add(total, term, out=total)
    return total


def _axes(values: torch.Tensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return [*range(values.ndim)]
    return [dim] if isinstance(dim, int) else [*dim]


def _without(values: torch.Tensor, axes: Sequence[int], keepdim: bool) -> torch.Tensor:
    return values if keepdim else values.squeeze([axis % values.ndim for axis in axes])


def _sum(
    mode: SumInTurn, self: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    if dtype not in (None, self.dtype):
        return None
    axes = _axes(self, dim)
    total = mode.total(self, axes)
    return None if total is None else _without(total, axes, keepdim)


def _mean(
    mode: SumInTurn, self: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    total = _sum(mode, self, dim, keepdim, dtype=dtype)
    return None if total is None else total / (self.numel() // total.numel())


def _var_mean(
    mode: SumInTurn, self: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Any:
    axes = _axes(self, dim)
    total = mode.total(self, axes, of_variance=True)
    if total is None:
        return None
    count = self.numel() // total.numel()
    mean = total / count
    squares = mode.total((self - mean).square(), axes, of_variance=True)
    assert squares is not None
    variance = squares / max(count - (1 if correction is None else correction), 0)
    return _without(variance, axes, keepdim), _without(mean, axes, keepdim)


def _var_mean_along(
    mode: SumInTurn, self: torch.Tensor, dim: Any, unbiased: bool = True, keepdim: bool = False
) -> Any:
    return _var_mean(mode, self, dim, correction=int(unbiased), keepdim=keepdim)


def _var(mode: SumInTurn, self: torch.Tensor, dim: Any = None, **options: Any) -> Any:
    pair = _var_mean(mode, self, dim, **options)
    return None if pair is None else pair[0]


def _avg_pool(
    mode: SumInTurn,
    self: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    if any(padding) or ceil_mode:
        return None
    axes, window = len(kernel_size), kernel_size
    steps = [*(stride or window)] * (axes if len(stride) == 1 else 1)
    if math.prod(window) < LONG or axes == 1:
        return None
    seen = self
    for place, (size, step) in enumerate(zip(window, steps, strict=True)):
        seen = seen.unfold(self.ndim - axes + place, size, step)
    total = mode.total(seen, range(self.ndim, self.ndim + axes))
    if total is None:
        return None
    return total.reshape(total.shape[: self.ndim]) / (divisor_override or math.prod(window))


def _adaptive_avg_pool(mode: SumInTurn, self: torch.Tensor, output_size: Sequence[int]) -> Any:
    sizes = self.shape[-len(output_size) :]
    if any(size % wanted for size, wanted in zip(sizes, output_size, strict=True)):
        return None
    return _avg_pool(mode, self, [size // wanted for size, wanted in zip(sizes, output_size, strict=True)])


def _norm(
    mode: SumInTurn,
    self: torch.Tensor,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Any:
    squares = _sum(mode, self.square(), dim, keepdim, dtype=dtype) if ord == 2 else None
    return None if squares is None else squares.sqrt()


_IN_TURN: dict[Any, Callable[..., Any]] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.var.correction: _var,
    aten.var_mean.correction: _var_mean,
    aten.var_mean.dim: _var_mean_along,
    aten.avg_pool2d.default: _avg_pool,
    aten.avg_pool3d.default: _avg_pool,
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
    aten._adaptive_avg_pool3d.default: _adaptive_avg_pool,
    aten.linalg_vector_norm.default: _norm,
}
_TAKEN_APART = {
    func: decomposition_table[func]
    for func in (
        aten.std.correction,
        aten._softmax.default,
        aten._log_softmax.default,
        aten.native_layer_norm.default,
        aten.native_group_norm.default,
        aten.native_batch_norm.default,
        aten._native_batch_norm_legit.no_stats,
    )
}
"""Operators that torch itself says in terms of those above."""
