"""One captured network: a functional ATen graph over the network's own state.

User inputs are placeholders, parameters and buffers are `get_attr` nodes named as in the state dict,
and every node knows its tensor's captured shape and the module that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from reparamkit.capture.canonical import canonicalise, symbolic_sizes
from reparamkit.capture.constant_arguments import ConstantArguments, constant_arguments
from reparamkit.capture.functional import assumed_of, functional_graph, writes_by_layout
from reparamkit.capture.general_sizes import GeneralSizes
from reparamkit.capture.layouts import LayoutGuard
from reparamkit.capture.questions import questions_of
from reparamkit.capture.size_conditions import Place, numbers_in
from reparamkit.capture.sizes import SizeGuards, held_sizes, size_guards
from reparamkit.capture.squeezes import varying_squeezes
from reparamkit.errors import CannotCapture
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves

if TYPE_CHECKING:
    from reparamkit.capture.witness import Witness

Axes = dict[int, dict[int, str]]
"""Flat input index -> axis -> symbol of the size that may vary there."""

aten = torch.ops.aten


@dataclass
class Program:
    """A captured network.

    `exported` is what it was read from, `state` holds the very tensors of the original, never copies;
    `args` and `kwargs` are the example that it was captured with, `axes` and `ranges` the sizes that may
    differ from it.
    """

    graph: fx.Graph
    exported: ExportedProgram
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    non_persistent: set[str] = field(default_factory=set)
    mutated: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    writes: bool = False
    submodules: dict[str, fx.GraphModule] = field(default_factory=dict)
    axes: Axes = field(default_factory=dict)
    ranges: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    shapes: list[tuple[str, tuple[int | torch.SymInt, ...]]] = field(default_factory=list)
    """Name and sizes of every tensor of the inputs, in call order."""
    guards: SizeGuards | None = None
    constant_arguments: ConstantArguments | None = None
    layout: LayoutGuard | None = None
    notes: list[str] = field(default_factory=list)
    general: GeneralSizes = field(default_factory=lambda: GeneralSizes({}))
    """Formulas of the sizes of all values, as the guards allow them to be read."""
    witness: Witness | None = None
    """Runs the original beside the captured graph; None where that tells nothing."""
    ordinary: tuple[Args, Kwargs] | None = None
    """The example, made smaller along free axes; None where nothing smaller is known to tell as much."""
    captured_otherwise: str = ""
    """What the network runs on its example when it is called and not when it is captured, in words."""
    differing: list[Mapping[str, int]] = field(default_factory=list)
    """Symbol -> size: where the network computes something else than the graph; the guards rule it out."""

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

    def asked_alike(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether all that the network asked of sizes has the same answer for these inputs."""
        if self.guards is None:
            return True
        tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
        sizes = [tensors[index].shape[axis] for index, axis in self.guards.places]
        return not self.guards.asked.intersection(self.guards.broken(sizes))

    @property
    def input_names(self) -> list[str]:
        """The name of every tensor of the inputs, in call order."""
        return [name for name, _ in self.shapes]

    def places_with(self, symbol: str) -> list[Place]:
        """The axes of the inputs that have this size."""
        return [(i, a) for i, axes in self.axes.items() for a, s in axes.items() if s == symbol]

    def example_sizes(self) -> dict[str, int]:
        """Every free symbol, with its size in the example that the program was captured with."""
        return {s: self._given[i, a] for i, axes in self.axes.items() for a, s in axes.items()}

    def places_of(self, point: Mapping[str, int]) -> dict[Place, int]:
        """The input sizes that change where free symbols have these sizes, formulas of them included."""
        now = {**self.example_sizes(), **point}
        changed: dict[Place, int] = {}
        for place, formula, symbols in self._varying:
            if not all(name in now for name in symbols.values()) or point.keys().isdisjoint(symbols.values()):
                continue
            if formula is None:
                changed[place] = now[next(iter(symbols.values()))]
            else:
                changed[place] = int(formula.subs({symbol: now[name] for symbol, name in symbols.items()}))
        return changed

    @cached_property
    def _varying(self) -> list[tuple[Place, Any, dict[Any, str]]]:
        """Where in the inputs a size varies, as which formula (None for a symbol), and the names in that."""
        varying = []
        for index, (_, shape) in enumerate(self.shapes):
            for axis, size in enumerate(shape):
                if isinstance(size, torch.SymInt):
                    expression = size.node.expr
                    symbols = {symbol: str(symbol) for symbol in expression.free_symbols}
                    if symbols:
                        varying.append(((index, axis), None if expression.is_symbol else expression, symbols))
        return varying

    def sizes_of(self, guards: SizeGuards, point: Mapping[str, int]) -> list[int]:
        """The sizes that these guards look at, where free symbols have these sizes."""
        changed = self.places_of(point)
        return [changed.get(place, self._given[place]) for place in guards.places]

    def symbols_in(self, guards: SizeGuards, text: str) -> list[str]:
        """The free symbols in the sizes that one of these guards' assumptions speaks of."""
        free = self.example_sizes()
        spoken_of = {guards.places[number] for number in numbers_in(text)}
        names = (
            name for place, _, symbols in self._varying if place in spoken_of for name in symbols.values()
        )
        return [name for name in dict.fromkeys(names) if name in free]

    @cached_property
    def _given(self) -> dict[Place, int]:
        """Every size of the example that it was captured with."""
        leaves = [tensor for _, tensor in tensor_leaves(self.args, self.kwargs)]
        return {(i, a): size for i, tensor in enumerate(leaves) for a, size in enumerate(tensor.shape)}

    def axes_of(self, symbol: str) -> list[int]:
        """The positions, within their tensors, of the axes that have this size."""
        return [axis for _, axis in self.places_with(symbol)]

    def hold(self, symbol: str, reason: str) -> None:
        """Keep a size from varying that the network turned out to settle; the guards refuse any other."""
        held = self.places_with(symbol)
        for index, axis in held:
            del self.axes[index][axis]
        self.axes = {index: axes for index, axes in self.axes.items() if axes}
        self.ranges.pop(symbol, None)
        where = ", ".join(f"axis {axis} of input {index}" for index, axis in held)
        if held:
            self.notes.append(f"the size of {where} is not free: the network settles it by {reason}")

    def copy(self) -> Program:
        """The same program with a graph of its own, which may be folded or changed."""
        graph, nodes = fx.Graph(), dict[fx.Node, fx.Node]()
        results: Any = graph.graph_copy(self.graph, nodes)
        graph.output(results)
        for node, copied in nodes.items():
            copied.name = (
                node.name
            )  # a namespace has names of its own for those of Python's built-in functions
        graph.set_codegen(self.graph._codegen)
        return replace(self, graph=graph, state=dict(self.state), submodules=dict(self.submodules))

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a `get_attr` node is a tensor that no call changes."""
        return node.op == "get_attr" and node.target in self.state and node.target not in self.mutated


def program_of(
    exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any], *, watched: bool = False
) -> Program:
    """The functional program behind an exported one.

    `watched` says that there is a network that it was captured from, with which sizes of one are going to
    be shown (`reparamkit.capture.shown`); an exported program that was handed in is itself what has to be
    computed.
    """
    original = exported
    graph, exported = functional_graph(exported)
    program = Program(graph, original, args, kwargs)
    inputs = _lift_state(program, exported)
    _write_back(program, exported)
    graph.set_codegen(_PyTreeCodeGen(_calling_convention(exported)))
    held = canonicalise(graph)
    if exported is not original:  # what is traced anew takes a size that varies for one that stays
        held += varying_squeezes(original.graph)
    program.axes, program.ranges = _dynamic_axes(exported, inputs)
    program.shapes = [
        (node.name, tuple(value.shape))
        for node in inputs
        if isinstance(value := node.meta.get("val"), Tensor)
    ]
    program.general = _general_sizes(graph, program.example_sizes(), inputs)
    program.guards = size_guards(
        original,
        inputs,
        not_one=held,
        nonnegative=program.general.nonnegative,
        asked=questions_of(original) if watched else (),
        retraced=assumed_of(exported),
        watched=watched,
    )
    for symbol, reason in held_sizes(program.guards, inputs).items():
        program.hold(symbol, reason)
    program.constant_arguments = constant_arguments(inputs)
    program.layout = writes_by_layout(original, inputs)
    if program.layout is not None:
        # Which memory a reshape shares depends on sizes of one, too; torch settles it when it traces anew.
        program.guards = program.guards.all_permanent()
        program.notes.append(
            "the network writes through a reshape, or the like, that shares memory in one "
            "layout only: its fold takes contiguous inputs; a file cannot refuse others"
        )
    return program


def _general_sizes(graph: fx.Graph, example: dict[str, int], inputs: list[fx.Node]) -> GeneralSizes:
    """With the formulas of all values read once, so that the conditions for them are known."""
    symbols = {
        size.node.expr: example[str(size)]
        for node in inputs
        for _, size in symbolic_sizes(node)
        if str(size) in example
    }
    general = GeneralSizes(symbols)
    for node in graph.nodes:
        value = node.meta.get("val")
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            for size in tensor.shape if isinstance(tensor, Tensor) else ():
                if isinstance(size, torch.SymInt):
                    general.of(size.node.expr)
    return general


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
                ranges[name] = (1, None)
                continue
            # torch's own lower bound of two only says that it was not a constant; the guards know more
            least = 1 if bound.lower <= 2 else int(bound.lower)
            ranges[name] = (least, int(bound.upper) if bound.upper.is_Integer else None)
    return axes, ranges


@dataclass(frozen=True)
class InParts:
    """A network that cannot be captured as one graph, of which parts were captured each by itself.

    Attributes:
        why: what keeps it from being captured whole.
    """

    why: CannotCapture


Captured = Program | InParts
"""How a network was captured."""
