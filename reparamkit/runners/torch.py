"""Runs an `nn.Module`, as it is, in evaluation mode and without gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch import nn
from torch.export import ExportedProgram

from reparamkit.errors import UnusableInput
from reparamkit.loading.scripted import kinds
from reparamkit.runners.base import NamedTensors, least_precise, named_outputs
from reparamkit.support.copies import is_training, private_copy
from reparamkit.support.isolation import call_untouched
from reparamkit.support.text import first_line

_QUANTISED_MODULES = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_QUANTISED_OPERATORS = ("quantized", "quantized_decomposed", "_quantized", "torchao")


class TorchRunner:
    """A module on PyTorch. One in training mode is copied and the copy evaluated, never the module itself."""

    structured = True

    def __init__(self, module: nn.Module, name: str = "torch") -> None:
        self.name = name
        self.was_training = is_training(module)
        self.module = private_copy(module) if self.was_training else module

    @property
    def precision(self) -> str:
        """The least precise floating-point type among its weights; "int8" if it holds a quantised layer."""
        weights = [*self.module.parameters(), *self.module.buffers()]
        if any(weight.is_quantized for weight in weights) or _is_quantised(self.module):
            return "int8"
        return least_precise({weight.dtype for weight in weights})

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        return named_outputs(call_untouched(self.module, args, kwargs))


def program_runner(program: ExportedProgram, name: str = "torch.export") -> TorchRunner:
    """A runner for an exported program.

    Raises:
        UnusableInput: torch cannot make a module of it, which is so where the network has a part called
            `graph`, `code`, `meta` or otherwise as torch.fx's modules have one.
    """
    try:
        module = program.module()
    except Exception as error:
        raise UnusableInput(
            f"torch cannot run this exported program: {first_line(error)}. Where a part of the network has "
            "the name of an attribute of torch.fx.GraphModule (graph, code, meta), call it otherwise, or "
            "fold the module itself"
        ) from error
    return TorchRunner(module, name)


def _is_quantised(module: nn.Module) -> bool:
    if any(type(part).__module__.startswith(_QUANTISED_MODULES) for part in module.modules()):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        compiled = getattr(module, "inlined_graph", None)
        operators = kinds(compiled) if compiled is not None else ()
        return any("quantized::" in kind or "aten::quantize_per" in kind for kind in operators)
    graph = getattr(module, "graph", None)
    return isinstance(graph, torch.fx.Graph) and any(
        str(getattr(node.target, "namespace", "")) in _QUANTISED_OPERATORS
        for node in graph.nodes
        if node.op == "call_function"
    )
