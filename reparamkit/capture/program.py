"""One captured network: a functional ATen graph over the network's own state.

User inputs are placeholders, parameters and buffers are `get_attr` nodes named as in the state dict,
and every node knows its tensor's captured shape and the module that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from reparamkit.capture.canonical import canonicalise, symbolic_sizes
from reparamkit.capture.functional import functional_graph, writes_by_layout
from reparamkit.capture.layouts import LayoutGuard
from reparamkit.capture.settled import SettledArguments, settled_arguments
from reparamkit.capture.sizes import SizeGuards, held_sizes, size_guards
from reparamkit.errors import CannotCapture
from reparamkit.inputs import tensor_leaves

Axes = dict[int, dict[int, str]]
"""Flat input index -> axis -> symbol of the size that may vary there."""

aten = torch.ops.aten


@dataclass
class Program:
    """A captured network.

    `exported` is what it was read from, `state` holds the very tensors of the original, never copies;
    `args` and `kwargs` are the example that it was captured with, `axes` and `ranges` the sizes that may
    differ from it. `added` are constants in float64 that the fold has put into `state`, with the type that
    one has if it stays.
    """

    graph: fx.Graph
    exported: ExportedProgram
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    added: dict[str, torch.dtype] = field(default_factory=dict)
    non_persistent: set[str] = field(default_factory=set)
    mutated: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    writes: bool = False
    submodules: dict[str, fx.GraphModule] = field(default_factory=dict)
    axes: Axes = field(default_factory=dict)
    ranges: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    guards: SizeGuards | None = None
    settled: SettledArguments | None = None
    layout: LayoutGuard | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> str:
        """Which sizes of the inputs may vary, in words."""
        free = {axis == 0 for axes in self.axes.values() for axis in axes}
        if len(free) == 2:
            return "free batch and spatial sizes"
        return "fixed sizes" if not free else "free batch size" if True in free else "free spatial sizes"

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether these inputs have sizes that the program was captured for."""
        try:
            if self.guards is not None:
                self.guards(*(tensor for _, tensor in tensor_leaves(args, kwargs)))
        except (ValueError, IndexError):
            return False
        return True

    def hold(self, symbol: str, reason: str) -> None:
        """Keep a size from varying that the network turned out to settle; the guards refuse any other."""
        held = [(i, a) for i, axes in self.axes.items() for a, s in axes.items() if s == symbol]
        for index, axis in held:
            del self.axes[index][axis]
        self.axes = {index: axes for index, axes in self.axes.items() if axes}
        self.ranges.pop(symbol, None)
        where = ", ".join(f"axis {axis} of input {index}" for index, axis in held)
        if held:
            self.notes.append(f"the size of {where} is not free: the network settles it by {reason}")

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a `get_attr` node is a tensor that no call changes."""
        return node.op == "get_attr" and node.target in self.state and node.target not in self.mutated


def program_of(exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The functional program behind an exported one."""
    original = exported
    graph, exported = functional_graph(exported)
    program = Program(graph, original, args, kwargs)
    inputs = _lift_state(program, exported)
    _write_back(program, exported)
    graph.set_codegen(_PyTreeCodeGen(_calling_convention(exported)))
    canonicalise(graph)
    program.axes, program.ranges = _dynamic_axes(exported, inputs)
    program.guards = size_guards(original, inputs)
    for symbol, reason in held_sizes(program.guards, inputs).items():
        program.hold(symbol, reason)
    program.settled = settled_arguments(inputs)
    program.layout = writes_by_layout(original, inputs)
    if program.layout is not None:
        program.notes.append(
            "the network writes through a reshape that shares memory in one layout only: its fold takes "
            "contiguous inputs; a file cannot refuse others"
        )
    return program


def _lift_state(program: Program, exported: ExportedProgram) -> list[fx.Node]:
    """Turn the placeholders of parameters and buffers into `get_attr` nodes; returns the real inputs."""
    graph, inputs = program.graph, []
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(node)
            continue
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CannotCapture(f"the model holds {spec.target!r}, an object that is not a tensor")
        name = str(spec.target)
        if spec.kind == InputKind.PARAMETER:
            program.parameters.add(name)
        if name in exported.state_dict:
            program.state[name] = exported.state_dict[name]
        else:
            program.state[name] = exported.constants[name]
            program.non_persistent.add(name)
        with graph.inserting_before(node):
            attr = graph.create_node("get_attr", name, name=node.name)
        attr.meta = dict(node.meta)
        node.replace_all_uses_with(attr)
        graph.erase_node(node)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in program.state:
            name = str(node.target)
            program.submodules[name] = getattr(exported.graph_module, name)
    return inputs


def _write_back(program: Program, exported: ExportedProgram) -> None:
    """Keep what the network writes into its buffers and inputs, as copies at the end of the graph."""
    graph = program.graph
    output = next(n for n in graph.nodes if n.op == "output")
    by_name = {n.name: n for n in graph.nodes}
    user, writes = [], []
    results: Any = output.args[0]
    for value, spec in zip(results, exported.graph_signature.output_specs, strict=True):
        if spec.kind == OutputKind.USER_OUTPUT:
            user.append(spec.arg.value if isinstance(spec.arg, ConstantArgument) else value)
        elif spec.kind == OutputKind.BUFFER_MUTATION:
            program.mutated.add(str(spec.target))
            attr = next(n for n in graph.nodes if n.op == "get_attr" and n.target == spec.target)
            writes.append((attr, value))
        elif spec.kind == OutputKind.PARAMETER_MUTATION:
            program.rewritten.add(str(spec.target))  # left out: `capture` shows that it may be
        elif spec.kind == OutputKind.USER_INPUT_MUTATION:
            writes.append((by_name[str(spec.target)], value))
        else:
            raise CannotCapture(f"the captured graph has an output of kind {spec.kind.name}")
    destinations = {destination for destination, _ in writes}
    with graph.inserting_before(output):

        def safe(value: Any) -> Any:
            """The value as it was before anything was written."""
            if value not in destinations:
                return value
            kept = graph.call_function(aten.clone.default, (value,))
            kept.meta = dict(value.meta)
            return kept

        user = [safe(value) for value in user]
        writes = [(destination, safe(value)) for destination, value in writes]
        for destination, value in writes:
            graph.call_function(aten.copy_.default, (destination, value))
    program.writes = bool(writes)
    output.args = (tuple(user),)


def _calling_convention(exported: ExportedProgram) -> _PyTreeInfo:
    in_spec, out_spec = exported.call_spec.in_spec, exported.call_spec.out_spec
    assert in_spec is not None
    signature = exported.module_call_graph[0].signature
    names = list(signature.forward_arg_names or []) if signature is not None else []
    if not names:
        names = [f"arg_{i}" for i in range(in_spec.child(0).num_children)]
        names += list(in_spec.child(1).context)
    return _PyTreeInfo(names, in_spec, out_spec)


def _dynamic_axes(
    exported: ExportedProgram, inputs: list[fx.Node]
) -> tuple[Axes, dict[str, tuple[int, int | None]]]:
    axes: Axes = {}
    ranges: dict[str, tuple[int, int | None]] = {}
    limits: dict[str, Any] = {str(k): v for k, v in exported.range_constraints.items()}
    tensors = [n for n in inputs if isinstance(n.meta.get("val"), Tensor)]
    for index, node in enumerate(tensors):
        for axis, size in symbolic_sizes(node):
            name = str(size)
            axes.setdefault(index, {})[axis] = name
            bound = limits.get(name)
            if bound is None:
                ranges[name] = (2, None)
                continue
            ranges[name] = (int(bound.lower), int(bound.upper) if bound.upper.is_Integer else None)
    return axes, ranges
