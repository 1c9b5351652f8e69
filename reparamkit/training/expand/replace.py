"""Putting blocks in the place of convolutions, in a copy of a network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.support.copies import is_training
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.isolation import call_untouched
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line
from reparamkit.training.expand.block import ExpandedConv
from reparamkit.training.expand.select import Candidate


class _StillCalled(Exception):
    """The convolution of this name was called, although a block has its place."""


class _Guard:
    """A hook on a convolution that was replaced."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, module: nn.Module, args: Any) -> None:
        raise _StillCalled(self.where)


def used_otherwise(
    expanded: nn.Module, blocks: Mapping[str, Candidate], inputs: tuple[Args, Kwargs]
) -> tuple[str, str] | None:
    """The name of a block of which the network's code wants the convolution, and a reason; None for none."""
    guards = [candidate.conv.register_forward_pre_hook(_Guard(where)) for where, candidate in blocks.items()]
    try:
        probe = evaluating(copied_model(expanded))
    finally:
        for guard in guards:
            guard.remove()
    try:
        with quiet():
            call_untouched(probe, *inputs)
    except Exception as error:
        reason: BaseException | None = error
        while reason is not None:
            if isinstance(reason, _StillCalled):
                return str(reason), "the network calls it by another way than its name"
            owner = getattr(reason, "obj", None)
            if isinstance(owner, ExpandedConv):
                where = next((n for n, m in probe.named_modules(remove_duplicate=False) if m is owner), None)
                if where is not None and where in blocks:
                    return where, f"the network's code reads its {getattr(reason, 'name', 'weight')}"
            reason = reason.__cause__ or reason.__context__
        raise UnusableInput(
            "the network does not run with blocks in place of its convolutions "
            f"({first_line(error)}); say with `where` which may be replaced"
        ) from error
    return None


def put(root: nn.Module, candidate: Candidate, module: nn.Module) -> nn.Module:
    """Put a module under all names of a convolution. Returns the network, which may be that module itself."""
    for name in candidate.names:
        if not name:
            return module
        path, _, last = name.rpartition(".")
        root.get_submodule(path)._modules[last] = module
    return root


def evaluating(model: nn.Module) -> nn.Module:
    """The model, in evaluation mode; one without modes (of torch.export) is left alone."""
    return model.eval() if is_training(model) else model


def copied_model(model: nn.Module) -> nn.Module:
    """A deep copy; a tensor with a history, which torch does not copy, is copied without it.

    Raises:
        UnusableInput: the model cannot be copied.
    """
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in with_history(model)}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            return copy.deepcopy(model, memo)
    except Exception as error:
        raise UnusableInput(f"the model cannot be copied: {first_line(error)}") from error


def with_history(model: nn.Module) -> list[Tensor]:
    """What modules hold that was computed from weights, as pruning and the older weight_norm do."""
    held = (value for part in model.modules() for value in vars(part).values())
    return [value for value in held if isinstance(value, Tensor) and not value.is_leaf]
