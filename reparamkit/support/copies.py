"""Private copies of modules, in evaluation mode: what is done with them never shows in the original."""

from __future__ import annotations

import contextlib
import copy
import warnings

import torch
from torch import nn

from reparamkit.support.memory import give_back


def private_copy(module: nn.Module, *, share: bool = False) -> nn.Module:
    """A deep copy in evaluation mode; with `share` all but its parameters and buffers are copied."""
    held = [*module.parameters(), *module.buffers()] if share else []
    with warnings.catch_warnings():
        # torch copies its own pytree specs by a deprecated way; nobody who calls this can act on it.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        duplicate = copy.deepcopy(module, {id(tensor): tensor for tensor in held})
    if is_training(duplicate):
        duplicate.eval()
    return duplicate


def held_by(module: nn.Module) -> frozenset[int]:
    """The identities of a module's parameters and buffers."""
    return frozenset(id(tensor) for tensor in [*module.parameters(), *module.buffers()])


def empty(module: nn.Module, original: frozenset[int]) -> None:
    """Free the weights of a private copy that nobody will run again, but none that are the original's."""
    with contextlib.suppress(Exception), torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if id(tensor) not in original:
                tensor.data = torch.empty(0, dtype=tensor.dtype)
    give_back()


def is_training(module: nn.Module) -> bool:
    """Whether the module or one that it holds is in training mode.

    A module that `torch.export` made has no modes (its `train` and `eval` raise); its `training` flags mean
    nothing, and the answer is no.
    """
    if "eval" in vars(module) and "train" in vars(module):
        return False
    return any(getattr(part, "training", False) for part in module.modules())  # a frozen script has none
