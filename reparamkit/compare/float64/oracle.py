"""The float64 oracle: the reference itself, run in double precision.

Rounding in float64 is 5e8 times finer than in float32, so the run stands for the exact value of the function
that the weights define.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from reparamkit.compare.float64.promote import PromoteToFloat64
from reparamkit.support.copies import empty, held_by, private_copy
from reparamkit.support.inputs import Args, Kwargs, map_tensors
from reparamkit.support.isolation import call_untouched
from reparamkit.support.memory import give_back
from reparamkit.support.text import first_line


class Twin:
    """A private copy of a module in float64, float32 or (`None`) its own precision, and in evaluation mode.

    The module that it was made from is never touched. The copy lives as long as this object does. With
    `share`, for the module's own precision only, it holds the same weights and not copies of them.

    Raises:
        Exception: whatever copying or converting the module raises.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None, *, share: bool = False) -> None:
        self.dtype = dtype
        self._original = held_by(module)
        self.module = private_copy(module, share=share and dtype is None)
        with warnings.catch_warnings():
            # A copy of a traced TorchScript module has parameters that are no leaves.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            if dtype is torch.float64:
                self.module.double()
            elif dtype is torch.float32:
                self.module.float()
        give_back()
        self._promote = dtype is torch.float64

    def __del__(self) -> None:
        # Modules hold themselves in circles: without this their weights would stay until somebody collects.
        if "module" in vars(self):
            empty(self.module, self._original)

    def run(self, args: Args, kwargs: Kwargs) -> Any:
        """What the module returns for these inputs, its floating-point inputs converted first."""
        args, kwargs = self.converted(args, kwargs)
        if self._promote:
            try:
                with torch.no_grad(), PromoteToFloat64():  # type: ignore[no-untyped-call]
                    return call_untouched(self.module, args, kwargs)
            except Exception:
                # Not every operator runs under a dispatch mode; most networks do not need it.
                self._promote = False
        with torch.no_grad():
            return call_untouched(self.module, args, kwargs)

    def converted(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """The inputs in the copy's precision."""
        return map_tensors(lambda _, tensor: self._converted(tensor), args, kwargs)

    def _converted(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.dtype is None:
            return tensor
        if tensor.is_complex():
            return tensor.to(torch.complex128 if self.dtype is torch.float64 else torch.complex64)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def run_float64(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Any | None, str]:
    """Run a copy of `module` in float64 and evaluation mode.

    Floating-point parameters, buffers and inputs become float64; integers and booleans stay. A dtype that is
    written down in the network's code is promoted as well (see `reparamkit.compare.float64.promote`).

    Returns:
        The module's output and "", or None and the reason why it has none.
    """
    try:
        twin = Twin(module, torch.float64)
        # Detached: an output may be a weight itself, and those go with the copy.
        return tree_map_only(torch.Tensor, torch.Tensor.detach, twin.run(args, kwargs)), ""
    except Exception as error:
        return None, first_line(error)
