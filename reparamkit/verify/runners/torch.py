"""Runs an `nn.Module`, as it is, in evaluation mode and without gradients."""

from __future__ import annotations

from typing import Any

from torch import nn

from reparamkit.untouched import call_untouched
from reparamkit.verify.oracle import is_training, private_copy
from reparamkit.verify.runners.base import NamedTensors, named_outputs


class TorchRunner:
    """A module on PyTorch. One in training mode is copied and the copy evaluated, never the module itself."""

    structured = True

    def __init__(self, module: nn.Module, name: str = "torch") -> None:
        self.name = name
        self.was_training = is_training(module)
        self.module = private_copy(module) if self.was_training else module

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        return named_outputs(call_untouched(self.module, args, kwargs))
