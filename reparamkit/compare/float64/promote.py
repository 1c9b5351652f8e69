"""Run code that names float32 (or a half) as if it had named float64.

A network that says `torch.zeros(n, dtype=torch.float32)` or `x.float()` cannot run in float64 by converting
its parameters alone: some operator meets two dtypes, or quietly computes in float32 and spoils the oracle.
Under this mode every operator gets float64 where it was given a lower real precision, and returns it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from reparamkit.compare.float64.grouped import grouped_convolution

_LOWER = frozenset({torch.float32, torch.float16, torch.bfloat16})


class PromoteToFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, dtypes and tensors below float64 are replaced by float64, operator by operator.

    Raises:
        TypeError: where an operator would write into a float32 tensor that existed before (the write would
            land in a copy and be lost), or reinterprets bits.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.view.dtype:
            raise TypeError("the network reinterprets the bits of a tensor, which has no float64 form")
        if func._schema.is_mutable and _writes_below_float64(func._schema, args, kwargs or {}):
            raise TypeError(f"{func} writes into a tensor that is kept in a lower precision")
        args, kwargs = tree_map(_promoted, (tuple(args), kwargs or {}))
        if func is torch.ops.aten.convolution.default and _grouped(args):
            values, kernel, bias, stride, padding, dilation, _, _, groups = args
            return grouped_convolution(values, kernel, bias, stride, padding, dilation, groups)
        return tree_map(_promoted, func(*args, **kwargs))


class PlainCalls(TorchFunctionMode):
    """Within it, functions see parameters as plain tensors, and with `promote` in float64.

    Some functions compare dtypes before they call an operator, so that `PromoteToFloat64` alone comes too
    late for weights that are left as they are; some choose other operators where a gradient is wanted. Calls
    that write in place are let through.
    """

    def __init__(self, promote: bool) -> None:
        super().__init__()
        self._promote = promote

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == name.rstrip("_"):
            args, kwargs = tree_map(self._plain, (tuple(args), kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.requires_grad:
            value = value.detach()
        return _promoted(value) if self._promote else value


def _promoted(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.complex64:
            return value.to(torch.complex128)
        return value.double() if value.dtype in _LOWER else value
    if value is torch.complex64:
        return torch.complex128
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOWER else value


def _grouped(args: tuple[Any, ...]) -> bool:
    """Whether these are all the arguments of a grouped float64 convolution, not transposed, on batches."""
    if len(args) != 9:
        return False
    values, kernel, transposed, groups = args[0], args[1], args[6], args[8]
    on_cpu = values.device.type == "cpu" and values.dtype is kernel.dtype is torch.float64
    return bool(on_cpu and groups > 1 and not transposed and values.ndim == kernel.ndim)


def _writes_below_float64(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if isinstance(value, torch.Tensor) and value.dtype in _LOWER:
            return True
    return False
