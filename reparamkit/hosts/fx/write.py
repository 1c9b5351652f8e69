"""Put the folded layers into the graph and make a module of it.

Every layer goes to the path of the module that owned what it replaces: the path of the one convolution or
linear layer in a chain, or, for branches, a child `reparam_conv` (`reparam_linear`) of the
innermost module that holds them all.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache

import torch
from torch import Tensor, fx, nn
from torch._library.utils import is_impure
from torch._ops import OpOverload

from reparamkit.capture.constant_arguments import constant_nodes
from reparamkit.capture.gradients import differentiable_copies
from reparamkit.capture.program import Program
from reparamkit.engine.form import Form
from reparamkit.engine.graph import Node
from reparamkit.engine.layers import ChannelScale, Piece, Realisation
from reparamkit.engine.plan import interior
from reparamkit.hosts.fx.calls import bundle_of
from reparamkit.hosts.fx.computed_once import Computed, computed_constants, settled_checks
from reparamkit.hosts.fx.graph_module import FoldedGraph, as_folded_graph
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.tidy import undo_round_trips
from reparamkit.operators import Opaque, properties

split_with_sizes = torch.ops.aten.split_with_sizes.default


class Surgery:
    """Edits the program's own graph, which is not the user's model.

    Args:
        host: the program as it was read.
        shared: the layers that several forms take a piece of, with the paths that are wanted for them.
    """

    def __init__(self, host: FxHost, shared: Mapping[nn.Module, str]) -> None:
        self.host = host
        self.graph = host.program.graph
        self._now: dict[int, fx.Node] = {}
        self._bundles: dict[object, fx.Node] = {}
        self._alive: set[fx.Node] = set()
        self._wanted: dict[fx.Node, tuple[str, nn.Module]] = {}
        self._shared = shared
        self.in_pieces: dict[nn.Module, fx.Node] = {}
        """The calls of the shared layers."""
        self._pieces: dict[nn.Module, fx.Node] = {}
        self.computed: dict[fx.Node, fx.Node] = {}
        """Stored tensors, with the constants that they take the place of; known once the module is made."""
        for risen in host.risen:
            for claim in risen.claims:
                claim.maps[-1].replace_all_uses_with(claim.value)
                for gone in reversed(claim.maps):
                    self.graph.erase_node(gone)
        self._as_read = {node: (node.args, node.kwargs) for node in self.graph.nodes}

    def replace(self, form: Form, realisation: Realisation) -> list[fx.Node]:
        """Replace the value at `form.node`; returns the calls of the new layers. Call in graph order."""
        old = self.host.fx_node(form.node)
        inside = interior(self.host.nodes, form)
        calls: list[fx.Node] = []
        readers = set(old.users)

        def call(i: int, x: fx.Node) -> fx.Node:
            module, piece = realisation.layers[i].module, realisation.layers[i].piece
            assert module is not None
            if piece is not None:
                pieces = self._cut(module, piece, x)
                calls.append(self.in_pieces[module])
                return self.graph.call_function(operator.getitem, (pieces, piece.number))
            calls.append(self.graph.call_module("", (x,)))
            self._wanted[calls[-1]] = self._wanted_path(inside, module), module
            return calls[-1]

        with self.graph.inserting_before(old):
            new = realisation.build(
                self._node,
                lambda op, *args: self.graph.call_function(op, args),
                call,
            )
        like = self.host.user_node(form.node)
        new.meta = {k: v for k, v in like.meta.items() if k in ("nn_module_stack", "stack_trace", "val")}
        node = self.host.nodes[form.node]
        if node.is_map_alone:
            new.meta["val"] = self.host.user_node(node.operands[0].id).meta["val"]
        if not node.synthetic:
            old.replace_all_uses_with(new, delete_user_cb=lambda user: user in readers)
        self._now[form.node] = new
        return calls

    def _cut(self, module: nn.Module, piece: Piece, x: fx.Node) -> fx.Node:
        """The pieces of what a shared layer gives; the layer is called where the first of them is needed."""
        if module not in self._pieces:
            whole = self.graph.call_module("", (x,))
            self._wanted[whole], self.in_pieces[module] = (self._shared[module], module), whole
            self._pieces[module] = self.graph.call_function(
                split_with_sizes, (whole, list(piece.sizes), piece.axis)
            )
        return self._pieces[module]

    def alias(self, form: Form) -> None:
        """The value is its source under another name."""
        old, source = self.host.fx_node(form.node), form.terms[0][0]
        copies = not self.host.nodes[source].synthetic
        if copies and (self.host.program.writes or self.host.nodes[form.node].shown):
            return  # a copy that someone can tell from its original stays
        self._now[form.node] = self._node(source)
        if not self.host.nodes[form.node].synthetic:
            old.replace_all_uses_with(self._now[form.node])

    def value_of(self, form: Form) -> fx.Node:
        """The node that has the value of a form that was put in."""
        return self._node(form.node)

    def _node(self, index: int) -> fx.Node:
        """The node that has a value now; a synthetic one is written down when it is first asked for."""
        if index not in self._now:
            node = self.host.nodes[index]
            self._now[index] = self._written(node) if node.synthetic else self.host.fx_node(index)
        return self._now[index]

    def _written(self, node: Node) -> fx.Node:
        call = self.host.user_node(node.id)
        newer = {self.host.fx_node(index): self._node(other) for index, other in node.operand_for.items()}
        items = bundle_of(call)
        if items is None:
            with self.graph.inserting_before(self.host.fx_node(node.id)):
                return self._copied(call, newer, node)
        bundle = (items, *sorted(node.operand_for.items()))
        if bundle not in self._bundles:
            with self.graph.inserting_before(items):  # whichever item is asked for first
                self._bundles[bundle] = self._copied(items, newer, node)
        with self.graph.inserting_before(self.host.fx_node(node.id)):
            return self._copied(call, {items: self._bundles[bundle]}, None)

    def _copied(self, call: fx.Node, newer: Mapping[fx.Node, fx.Node], node: Node | None) -> fx.Node:
        """A call once more. It is copied as it was read: folds put in since have changed its operands."""

        def current(operand: fx.Node) -> fx.Node:
            if operand in newer:
                return newer[operand]
            index = self.host.id_of(operand)
            return operand if index is None else self._now.get(index, operand)

        args, kwargs = fx.map_arg(self._as_read[call], current)
        copied = self.graph.create_node(call.op, call.target, args, kwargs)
        if node is not None:
            copied.args, copied.kwargs = self.host.arguments(node, copied)
        copied.meta = dict(call.meta)
        return copied

    def is_used(self, call: fx.Node) -> bool:
        """Whether the call of a layer is still there; known once the module is made."""
        return call in self._wanted

    def is_left(self, node: int) -> bool:
        """Whether the value, or what took its place, is still computed; known once the module is made."""
        return any(n in self._alive for n in (self.host.fx_node(node), self._now.get(node)))

    def is_alive(self, node: int) -> bool:
        """Whether the operator itself is still there; known once the module is made."""
        return self.host.fx_node(node) in self._alive

    def stands_now(self, node: int) -> fx.Node | None:
        """What has taken the place of a value, if it is still there; known once the module is made."""
        now = self._now.get(node)
        return now if now in self._alive else None

    def module(self) -> fx.GraphModule:
        """The finished module, with parameters of its own; afterwards every call knows its path."""
        undo_round_trips(self.graph)
        differentiable_copies(self.graph)
        self.graph.eliminate_dead_code(is_impure_node=_impure)
        computed = self._constants_computed_once()
        root = _root(self.host.program, self.graph, computed)
        self._alive = set(self.graph.nodes)
        self._wanted = {call: wanted for call, wanted in self._wanted.items() if call in self._alive}
        tried: dict[str, int] = {}
        for call, (wanted, layer) in self._wanted.items():
            call.target = free_path(root, holdable(wanted), tried)
            call._rename(re.sub(r"\W", "_", call.target))
            *path, last = call.target.split(".")
            _ensure(root, path).add_module(last, layer)
        self._store(root, computed)
        self._guard(root)
        self._keep_gradients_out_of_buffers()
        module = FoldedGraph(root, self.graph, class_name="Folded")
        passing = [str(node.target) for node, constant in computed.items() if not constant.persistent]
        for name in (*self.host.program.non_persistent, *passing):
            *path, last = holdable(name).split(".")
            with suppress(AttributeError):  # no longer used
                module.get_submodule(".".join(path))._non_persistent_buffers_set.add(last)
        for node in module.graph.nodes:
            node.meta = {k: v for k, v in node.meta.items() if k == "nn_module_stack"}
        return module.eval()

    def _constants_computed_once(self) -> dict[fx.Node, Computed]:
        """Read stored tensors in place of what is computed from the network's own alone."""
        program = self.host.program
        settled = settled_checks(self.graph, self.host.constants, program.state)
        for check in settled:
            self.graph.erase_node(check)
        computed: dict[fx.Node, Computed] = {}
        for constant in computed_constants(
            self.graph, self.host.constants, program.state, program.non_persistent
        ):
            old = constant.node
            with self.graph.inserting_before(old):
                new = self.graph.create_node("get_attr", "", name=old.name)  # its path comes later
            new.meta = {k: v for k, v in old.meta.items() if k in ("nn_module_stack", "stack_trace", "val")}
            old.replace_all_uses_with(new)
            computed[new], self.computed[new] = constant, old
        if settled or computed:
            self.graph.eliminate_dead_code(is_impure_node=_impure)
        return computed

    def _store(self, root: nn.Module, computed: dict[fx.Node, Computed]) -> None:
        """Give the computed constants their places: at the module that computed them."""
        tried: dict[str, int] = {}
        for node, constant in computed.items():
            path = owner_path(constant.node)
            wanted = f"{path}.constant" if path else "constant"
            name = free_path(root, holdable(wanted), tried)
            while name in self.host.program.state:
                name = f"{name}_"
            node.target = name
            *parts, last = name.split(".")
            owner = _ensure(root, parts)
            value = constant.value.to(node.meta["val"].device)
            if constant.trained:
                owner.register_parameter(last, nn.Parameter(value))
            else:
                owner.register_buffer(last, value, persistent=constant.persistent)

    def _keep_gradients_out_of_buffers(self) -> None:
        """What is written into a buffer is a value: with its history, a second training step would fail.

        The capture does not know whether the network wrote it under `no_grad`; one that can be trained did.
        """
        for node in list(self.graph.nodes):
            if node.target is torch.ops.aten.copy_.default and node.args[0].op == "get_attr":
                with self.graph.inserting_before(node):
                    value = self.graph.call_function(torch.ops.aten.detach.default, (node.args[1],))
                node.args = (node.args[0], value, *node.args[2:])

    def _guard(self, root: nn.Module) -> None:
        """Check sizes and constant arguments before anything is computed from them."""
        guards, constants = self.host.program.guards, self.host.program.constant_arguments
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"]

        def first(name: str, check: nn.Module, reads: tuple[fx.Node, ...]) -> None:
            name = free_path(root, name)
            root.add_module(name, check)
            with self.graph.inserting_after(inputs[-1]):
                self.graph.call_module(name, reads)

        if constants is not None:
            first("constant_arguments", constants, tuple(constant_nodes(inputs)))
        tensors = tuple(n for n in inputs if isinstance(n.meta.get("val"), Tensor))
        layout = self.host.program.layout
        if layout is not None:
            first("memory_layout", layout, tensors)
        if guards is not None and guards.assumptions:
            first("size_guards", guards, tensors)

    def _wanted_path(self, inside: Sequence[int], module: nn.Module) -> str:
        owners = [owner_path(self.host.user_node(i)) for i in inside]
        branches = any(len(self.host.nodes[i].operands) > 1 for i in inside)
        weighted = [
            owner
            for i, owner in zip(inside, owners, strict=True)
            if properties.has_weights(self.host.nodes[i].operator)
            or isinstance(self.host.nodes[i].meaning, Opaque)
        ]
        if len(weighted) == 1 and weighted[0] and not branches:
            return weighted[0]
        kind = "scale"
        if isinstance(module, nn.Linear):
            kind = "linear"
        elif isinstance(module, nn.modules.conv._ConvNd):
            kind = "conv"
        elif not isinstance(module, ChannelScale):
            kind = "embedding" if isinstance(module, nn.Embedding) else "norm"
        return ".".join(filter(None, [common_path(owners), f"reparam_{kind}"]))


def _impure(node: fx.Node) -> bool:
    if isinstance(node.target, OpOverload):
        return _has_effects(node.target)
    if node.op == "call_function":
        return node.is_impure(impure_random=False)
    return node.op in ("placeholder", "output")


@cache
def _has_effects(operator: OpOverload) -> bool:
    return is_impure(operator, impure_random=False)


def free_path(root: nn.Module, wanted: str, tried: dict[str, int] | None = None) -> str:
    """The path wanted, or the next number behind it where the network still keeps something there.

    Nothing goes inside another layer or a tensor: then it is the nearest module above. `tried` remembers the
    numbers that are known to be taken.
    """
    *path, last = wanted.split(".")
    held: list[str] = []
    for name in path:
        if hasattr(root, name) and type(root._modules.get(name)) is not nn.Module:
            break
        held.append(name)
        root = root._modules.get(name) or nn.Module()
    wanted = ".".join([*held, last])
    tried = {} if tried is None else tried
    count = tried.get(wanted, 0)
    while hasattr(root, f"{last}_{count}" if count else last):
        count += 1
    tried[wanted] = count
    return f"{wanted}_{count}" if count else wanted


@cache
def _own_names() -> frozenset[str]:
    """What a graph module has of its own, besides what every module has."""
    graph = fx.Graph()
    graph.output(None)
    of_pickles = ("_in_spec", "_out_spec", "shape_env")
    return frozenset({*dir(FoldedGraph(nn.Module(), graph)), *of_pickles}) - {*dir(nn.Module())}


def holdable(path: str) -> str:
    """The path, or one like it where a graph module has a `graph`, a `code` or a `meta` of its own."""
    first, dot, rest = path.partition(".")
    return f"{first}_{dot}{rest}" if first in _own_names() else path


def owner_path(node: fx.Node) -> str:
    """The path of the module whose forward made the node; "" for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    for path, _ in reversed(stack.values()):
        return re.sub(r"@\d+", "", path)
    return ""


def common_path(paths: Iterable[str]) -> str:
    """The innermost module that holds all of them."""
    split = [p.split(".") if p else [] for p in paths]
    common: list[str] = []
    for names in zip(*split, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)


def _root(program: Program, graph: fx.Graph, without: Container[fx.Node]) -> nn.Module:
    root = nn.Module()
    owned: dict[int, nn.Parameter] = {}
    used = [node for node in graph.nodes if node.op == "get_attr" and node not in without]
    names = dict.fromkeys(str(node.target) for node in used)
    for node in used:
        node.target = holdable(str(node.target))
    for name in names:
        *path, last = holdable(name).split(".")
        parent = _ensure(root, path)
        if name in program.submodules:
            parent.add_module(last, as_folded_graph(program.submodules[name]))
            continue
        tensor = program.state[name]
        if name in program.parameters:
            key = id(tensor)
            if key not in owned:
                owned[key] = nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
            parent.register_parameter(last, owned[key])
        else:
            parent.register_buffer(
                last, tensor.detach().clone(), persistent=name not in program.non_persistent
            )
    return root


def _ensure(root: nn.Module, path: Sequence[str]) -> nn.Module:
    for name in path:
        child = root._modules.get(name)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        root = child
    return root
