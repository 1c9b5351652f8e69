"""A network as if it ran in a lower precision: weights, inputs and the result of every operator are rounded.

The arithmetic in between stays in the network's own precision. That is what hardware with wide accumulators
does, and it needs no kernels for the lower type. Back ends that round less often come out nearer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from reparamkit.compare.float64.oracle import Twin
from reparamkit.support.inputs import Args, Kwargs, map_tensors


def rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The nearest values that `dtype` can hold, in the tensor's own type; anything but a float as it is."""
    if not tensor.is_floating_point() or torch.finfo(tensor.dtype).eps >= torch.finfo(dtype).eps:
        return tensor
    return tensor.to(dtype).to(tensor.dtype)


class RoundedTwin(Twin):
    """A private copy of a module that computes as if in `dtype` (float16 or bfloat16).

    Raises:
        Exception: whatever copying the module raises.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(module, None)
        self.rounds_to = dtype
        with torch.no_grad():
            for tensor in [*self.module.parameters(), *self.module.buffers()]:
                tensor.copy_(rounded(tensor, dtype))

    def run(self, args: Args, kwargs: Kwargs, *, results: bool = True) -> Any:
        """What the module returns for these inputs, rounded first; without `results` only the weights are."""
        if not results:
            return super().run(args, kwargs)
        args, kwargs = map_tensors(lambda _, tensor: rounded(tensor, self.rounds_to), args, kwargs)
        with RoundResults(self.rounds_to):
            return super().run(args, kwargs)


class RoundResults(TorchDispatchMode):
    """Within it, the floating-point results of every operator are rounded to what `dtype` can hold."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        schema = func._schema
        if any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns):
            return result  # a view holds what was rounded already, and has to stay a view
        return tree_map(self._written if schema.is_mutable else self._fresh, result)

    def _fresh(self, value: Any) -> Any:
        return rounded(value, self._dtype) if isinstance(value, torch.Tensor) else value

    def _written(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value.copy_(rounded(value, self._dtype))
        return value
