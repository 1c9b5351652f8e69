"""What a forward takes and gives besides tensors: a package has tensors only."""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from reparamkit.lower.coreml.toolbox import CannotConvert


def check_arguments(program: ExportedProgram) -> None:
    """Find out whether Core ML can have inputs and outputs such as these at all.

    Raises:
        CannotConvert: the network writes into its buffers or inputs, an input has no axes, an output is no
            tensor.
    """
    for spec in program.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise CannotConvert(
                f"the network changes {spec.target!r} while it runs, and a package keeps nothing between runs"
            )
        if isinstance(spec.arg, ConstantArgument) and spec.arg.value is not None:
            raise CannotConvert(f"the network returns {spec.arg.value!r}, which is no tensor")
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in program.graph_signature.user_inputs:
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.ndim:
            raise CannotConvert(
                f"Core ML has no inputs without axes, and {node.name!r} is one: give it one axis"
            )


def without_constants(program: ExportedProgram) -> None:
    """Leave out arguments that are no tensors, whose values capture settled, and a `None` that comes back."""
    signature, graph = program.graph_signature, program.graph
    settled = {
        spec.arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, ConstantArgument)
    }
    for node in list(graph.nodes):
        if node.op == "placeholder" and node.name in settled and not node.users:
            graph.erase_node(node)
    signature.input_specs[:] = [spec for spec in signature.input_specs if spec.arg.name not in settled]
    output = graph.output_node()
    pairs = list(zip(signature.output_specs, output.args[0], strict=True))
    kept = [(spec, value) for spec, value in pairs if isinstance(value, fx.Node)]
    signature.output_specs[:] = [spec for spec, _ in kept]
    output.args = (tuple(value for _, value in kept),)
