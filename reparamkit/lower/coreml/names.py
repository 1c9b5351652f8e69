"""Names in a Core ML package: inputs, outputs, and operators that say which module they come from.

An operator is called after the module that it belongs to ("stages.0.1.reparam_conv"), or, where a module
makes several, after the module and the operator ("stages.0.1.add"). The same program has the same names each
time, so that a choice made on one conversion holds for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

from reparamkit.lower.coreml.identifiers import identifiers

ORIGIN = "stack_trace"
"""The entry of a node's `meta` that coremltools hands on to the operators that it makes of the node."""


def name_operators(program: ExportedProgram, taken: Iterable[str]) -> None:
    """Call every operator of a program after its module, and write that origin down in its `meta`.

    Args:
        taken: names that no operator may have: those of the package's inputs and outputs.
    """
    graph = program.graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    owners = {node: _owner(node, program) for node in calls}
    alone = Counter(owners.values())
    origins = []
    for node in calls:
        owner = owners[node]
        kind = _kind(node)
        origins.append(owner if owner and alone[owner] == 1 else ".".join(filter(None, (owner, kind))))
    others = {node.name for node in graph.nodes if node.op != "call_function"} | set(taken)
    for node, origin, name in zip(calls, origins, identifiers(origins, others), strict=True):
        node.meta[ORIGIN] = origin
        # Not through the graph's namespace, which remembers every name that there ever was and avoids it.
        node.name = name
    results = graph.output_node().args[0]
    for spec, value in zip(program.graph_signature.output_specs, results, strict=True):
        if isinstance(spec.arg, TensorArgument) and isinstance(value, fx.Node):
            spec.arg.name = value.name


def operator_origins(program: ExportedProgram) -> list[str]:
    """Where each operator of a named program comes from, in order."""
    return [str(node.meta[ORIGIN]) for node in program.graph.nodes if node.op == "call_function"]


def _kind(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.rsplit("::", 1)[-1]
    return str(getattr(node.target, "__name__", node.target))


def _owner(node: fx.Node, program: ExportedProgram) -> str:
    """The path of the module that a node belongs to: its weight's, or the innermost that was being called."""
    signature = program.graph_signature
    for argument in node.all_input_nodes:
        for lifted in (signature.inputs_to_parameters, signature.inputs_to_buffers):
            path, _, name = lifted.get(argument.name, "").rpartition(".")
            if name == "weight":
                return str(path)
    stack: Sequence[tuple[str, object]] = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return "" if path.startswith(_NOWHERE) else path


_NOWHERE = "_empty_nn_module_stack"
"""What torch.export writes where it knows no module."""
