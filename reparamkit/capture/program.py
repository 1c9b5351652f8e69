"""One captured network: a functional ATen graph over the network's own state.

User inputs are placeholders, parameters and buffers are `get_attr` nodes named as in the state dict,
and every node knows its tensor's captured shape and the module that it came from.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from reparamkit.capture.functional import functional_graph
from reparamkit.errors import CannotCapture

Axes = dict[int, dict[int, str]]
"""Flat input index -> axis -> symbol of the size that may vary there."""

aten = torch.ops.aten
_NORM_WITHOUT_STATISTICS_UPDATE = aten._native_batch_norm_legit_no_training.default
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten._to_copy.default)


@dataclass
class Program:
    """A captured network; `state` holds the very tensors of the original, never copies."""

    graph: fx.Graph
    state: dict[str, Tensor]
    parameters: frozenset[str]
    non_persistent: frozenset[str]
    mutated: frozenset[str]
    submodules: dict[str, fx.GraphModule]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    axes: Axes
    ranges: dict[str, tuple[int, int | None]]
    notes: list[str] = field(default_factory=list)

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a `get_attr` node is a tensor that no call changes."""
        return node.op == "get_attr" and node.target in self.state and node.target not in self.mutated


def program_of(exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The functional program behind an exported one."""
    graph, exported = functional_graph(exported)
    signature = exported.graph_signature
    state: dict[str, Tensor] = {}
    parameters, non_persistent, mutated = set(), set(), set()
    targets: dict[str, str] = {}
    submodules: dict[str, fx.GraphModule] = {}
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    inputs = []
    for node, spec in zip(placeholders, signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(node)
            continue
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CannotCapture(f"the model holds {spec.target!r}, an object that is not a tensor")
        name = str(spec.target)
        if spec.kind == InputKind.PARAMETER:
            parameters.add(name)
        if name in exported.state_dict:
            state[name] = exported.state_dict[name]
        else:
            state[name] = exported.constants[name]
            non_persistent.add(name)
        targets[node.name] = name
        with graph.inserting_before(node):
            attr = graph.create_node("get_attr", name, name=node.name)
        attr.meta = dict(node.meta)
        node.replace_all_uses_with(attr)
        graph.erase_node(node)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in state:
            submodules[node.target] = getattr(exported.graph_module, node.target)

    output = next(n for n in graph.nodes if n.op == "output")
    user, writes = [], []
    by_name = {n.name: n for n in graph.nodes}
    for value, spec in zip(output.args[0], signature.output_specs, strict=True):
        if spec.kind == OutputKind.USER_OUTPUT:
            literal = isinstance(spec.arg, ConstantArgument)
            user.append(spec.arg.value if literal else value)
        elif spec.kind == OutputKind.BUFFER_MUTATION:
            mutated.add(str(spec.target))
            attr = next(n for n in graph.nodes if n.op == "get_attr" and n.target == spec.target)
            writes.append((attr, value))
        elif spec.kind == OutputKind.USER_INPUT_MUTATION:
            writes.append((by_name[str(spec.target)], value))
        else:
            raise CannotCapture(f"the captured graph has an output of kind {spec.kind.name}")
    with graph.inserting_before(output):
        for destination, value in writes:
            graph.call_function(aten.copy_.default, (destination, value))
    output.args = (tuple(user),)

    in_spec, out_spec = exported.call_spec.in_spec, exported.call_spec.out_spec
    names = exported.module_call_graph[0].signature
    arguments = list(names.forward_arg_names or []) if names is not None else []
    if not arguments:
        arguments = [f"arg_{i}" for i in range(in_spec.child(0).num_children)]
        arguments += list(in_spec.child(1).context)
    graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(arguments, in_spec, out_spec)))

    _canonicalise(graph)
    axes, ranges = _dynamic_axes(exported, inputs)
    return Program(
        graph=graph,
        state=state,
        parameters=frozenset(parameters),
        non_persistent=frozenset(non_persistent),
        mutated=frozenset(mutated),
        submodules=submodules,
        args=args,
        kwargs=kwargs,
        axes=axes,
        ranges=ranges,
    )


def _canonicalise(graph: fx.Graph) -> None:
    """One spelling for what has several, so that operators are read in one dialect."""
    sizes: dict[str, tuple[fx.Node, int]] = {}
    for node in list(graph.nodes):
        if node.op == "placeholder":
            for axis, size in _symbolic(node):
                sizes.setdefault(str(size), (node, axis))
        if node.op != "call_function":
            continue
        if node.target is operator.getitem and node.args[0].target is _NORM_WITHOUT_STATISTICS_UPDATE:
            _as_batch_norm(graph, node)
        elif node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in _CASTS and _changes_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # a folded layer may leave its output in other strides
        elif node.target is aten.sym_size.int:
            _read_size_off_an_input(graph, node, sizes)
    graph.eliminate_dead_code()


def _as_batch_norm(graph: fx.Graph, item: fx.Node) -> None:
    norm = item.args[0]
    if item.args[1] != 0:
        return
    value, weight, bias, mean, var, momentum, eps = norm.args
    with graph.inserting_before(item):
        plain = graph.call_function(
            aten.batch_norm.default, (value, weight, bias, mean, var, False, momentum, eps, False)
        )
    plain.meta = dict(norm.meta) | {"val": item.meta["val"]}
    item.replace_all_uses_with(plain)
    graph.erase_node(item)
    if not norm.users:
        graph.erase_node(norm)


def _changes_nothing(node: fx.Node) -> bool:
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    return (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and before.dtype == after.dtype
        and before.device == after.device
    )


def _read_size_off_an_input(graph: fx.Graph, node: fx.Node, sizes: dict[str, tuple[fx.Node, int]]) -> None:
    """Keep a size from holding alive an intermediate tensor that a fold would remove."""
    value = node.meta.get("val")
    if isinstance(value, int):
        node.replace_all_uses_with(value)  # type: ignore[arg-type]
        graph.erase_node(node)
        return
    found = sizes.get(str(value))
    if found is not None and node.args[0] is not found[0]:
        node.args = found


def _symbolic(node: fx.Node) -> Iterator[tuple[int, torch.SymInt]]:
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        for axis, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt):
                yield axis, size


def _dynamic_axes(
    exported: ExportedProgram, inputs: list[fx.Node]
) -> tuple[Axes, dict[str, tuple[int, int | None]]]:
    axes: Axes = {}
    ranges: dict[str, tuple[int, int | None]] = {}
    limits = {str(k): v for k, v in exported.range_constraints.items()}
    for index, node in enumerate(inputs):
        for axis, size in _symbolic(node):
            name = str(size)
            axes.setdefault(index, {})[axis] = name
            bound = limits.get(name)
            upper = getattr(bound, "upper", None)
            finite = upper is not None and upper.is_number and upper < 2**31
            ranges[name] = (int(bound.lower) if bound is not None else 2, int(upper) if finite else None)  # type: ignore[arg-type]
    return axes, ranges


def is_operator(node: fx.Node) -> bool:
    """Whether the node calls an ATen-like operator, as against Python arithmetic on sizes."""
    return node.op == "call_function" and isinstance(node.target, OpOverload)


def leaves(inputs: tuple[Any, dict[str, Any]]) -> list[Any]:
    """The flat inputs in the order of the placeholders."""
    return pytree.tree_leaves(inputs)
