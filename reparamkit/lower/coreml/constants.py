"""What a program computes from its own constants alone becomes a constant.

coremltools does the same for the operators that it knows; position embeddings that are resized, or index
tables that are filled step by step, use others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

LARGEST = 1 << 20
"""Elements of a result that may be larger than all it was computed from."""

_RANDOM = ("rand", "randn", "randint", "randperm", "bernoulli", "normal", "dropout", "multinomial")


def fold_constants(program: ExportedProgram) -> None:
    """Replace every operator that depends on no input, in place."""
    known = _stored(program)
    graph = program.graph
    held = dict(known)
    for node in graph.nodes:
        if node.op != "call_function" or not _is_foldable(node, held):
            continue
        arguments, named = fx.node.map_arg((node.args, node.kwargs), lambda used: held[used])
        with torch.no_grad():
            value = node.target(*arguments, **named)
        if _is_worth_it(value, [held[used] for used in node.all_input_nodes]):
            held[node] = value
    for number, node in enumerate(
        node
        for node in list(graph.nodes)
        if node in held
        and node not in known
        and isinstance(held[node], torch.Tensor)
        and any(user not in held for user in node.users)
    ):
        _store(program, node, held[node], f"reparamkit_constant_{number}")
    graph.eliminate_dead_code()


def _stored(program: ExportedProgram) -> dict[fx.Node, torch.Tensor]:
    """The tensors that the program holds and does not change."""
    signature = program.graph_signature
    changed = set(signature.buffers_to_mutate.values())
    stored: dict[fx.Node, torch.Tensor] = {}
    specs = {spec.arg.name: spec for spec in signature.input_specs if isinstance(spec.arg, TensorArgument)}
    tensors: Mapping[str, Any] = {**program.constants, **program.state_dict}
    for node in program.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is None or spec.kind is InputKind.USER_INPUT or spec.target in changed:
            continue
        value = tensors.get(str(spec.target))
        if isinstance(value, torch.Tensor):
            stored[node] = value.detach()
    return stored


def _is_foldable(node: fx.Node, held: Mapping[fx.Node, Any]) -> bool:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        schema = target._schema
        if schema.is_mutable or any(kind in schema.name for kind in _RANDOM) or not schema.returns:
            return False
    return all(used in held for used in node.all_input_nodes)


def _is_worth_it(value: Any, inputs: list[Any]) -> bool:
    if not isinstance(value, torch.Tensor):
        return isinstance(value, tuple | list | int | float | bool)
    sizes = [each.numel() for each in inputs if isinstance(each, torch.Tensor)]
    return value.numel() <= max(LARGEST, *sizes, 0)


def _store(program: ExportedProgram, node: fx.Node, value: torch.Tensor, name: str) -> None:
    """Put a tensor into the program, in place of a node."""
    graph = program.graph
    first = next(each for each in graph.nodes if each.op == "placeholder")
    with graph.inserting_before(first):
        placeholder = graph.placeholder(name)
    placeholder.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(placeholder)
    program.constants[name] = value.clone()
    program.graph_signature.input_specs.insert(
        0, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), name)
    )
