"""From the graph that torch.export gives to a functional one: no in-place operator, no alias that matters.

`ExportedProgram.run_decompositions({})` does this for every graph, at two to four times the cost of the
export itself. Nearly all networks write in place only where nobody else can see it
(`out += branch`, `ReLU(inplace=True)`), and there it is enough to rename the operator:

    y = x.add_(z)   ──▶   y = x.add(z), and every later reader of x reads y

provided that nothing which may share memory with x is read afterwards. Where that cannot be shown, torch's
own functionalization is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram

from reparamkit.capture.gradients import inline_grad_regions
from reparamkit.capture.hidden_views import dropouts_off, is_hidden_view, spell_out_views
from reparamkit.capture.layouts import LayoutGuard, layout_guard
from reparamkit.capture.oblivious import sizes_oblivious
from reparamkit.errors import CannotCapture
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line

_ASSUMED = "what was assumed of sizes when it was made functional"

# Composite operators that always compute into memory of their own, though their schema does not say so.
_FRESH = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear matmul cat stack
    batch_norm layer_norm group_norm instance_norm rms_norm softmax log_softmax gelu silu relu6 selu prelu
    avg_pool1d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d max_pool2d max_pool3d
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d scaled_dot_product_attention
    """.split()  # noqa: SIM905 - a table of names reads better than a list of strings
)

# Elementwise operators whose functional form computes the same number type.
_ELEMENTWISE = frozenset(
    """
    add sub mul div neg abs relu relu6 hardtanh hardswish hardsigmoid silu mish gelu elu celu selu leaky_relu
    sigmoid tanh softplus threshold clamp clamp_min clamp_max exp log sqrt rsqrt square pow reciprocal addcmul
    addcdiv lerp sin cos erf floor ceil round
    """.split()  # noqa: SIM905
)


def functional_graph(exported: ExportedProgram) -> tuple[fx.Graph, ExportedProgram]:
    """A functional copy of the graph, and the program whose signature it follows."""
    graph = _copy(exported.graph)
    inline_grad_regions(graph, exported)
    _without_dropout(graph)
    if not _writes(graph) or _rename_in_place(graph):
        return graph, exported
    decomposed = _decomposed(exported)
    return _copy(decomposed.graph), decomposed


def _decomposed(exported: ExportedProgram) -> ExportedProgram:
    """The program in torch's own functional form.

    Raises:
        CannotCapture: torch has none for it.
    """
    graph = _copy(exported.graph)
    inline_grad_regions(graph, exported)
    spell_out_views(graph)
    try:
        with quiet(), sizes_oblivious():
            spelt_out = exported._update(
                fx.GraphModule(exported.graph_module, graph),
                exported.graph_signature,
                state_dict=exported.state_dict,
                constants=exported.constants,
                verifiers=[exported.verifier],
            )
            environment = _shape_environment(graph)
            known = 0 if environment is None else len(environment.guards)
            decomposed: ExportedProgram = spelt_out.run_decompositions({})
            if environment is not None:
                decomposed.graph_module.meta[_ASSUMED] = [g.expr for g in environment.guards[known:]]
            return decomposed
    except Exception as error:  # torch has no error of its own for this, and some of its assertions fail
        shared = _shared_buffers(exported)
        if shared:
            reason = f"it writes in place, and {shared} share memory"
            raise CannotCapture(
                f"the model cannot be captured as one graph: {reason}. Give each a tensor of its own "
                "(clone it), or make one of them an attribute of the other's values when the network runs",
                reason,
            ) from error
        reason = f"it writes in place in a way that torch cannot express without: {first_line(error)}"
        raise CannotCapture(
            f"the model cannot be captured as one graph: {reason}. Write out of place (y = y.add(1) for "
            "y.add_(1), y = torch.where(...) for y[...] = ...), or into copies of its buffers",
            reason,
        ) from error


def assumed_of(functional: ExportedProgram) -> list[Any]:
    """What torch took for true of symbolic sizes when it made the program functional, and told nobody."""
    assumed: list[Any] = functional.graph_module.meta.get(_ASSUMED, [])
    return assumed


def _shape_environment(graph: fx.Graph) -> Any:
    shapes = [n.meta["val"].shape for n in graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    sizes = (size for shape in shapes for size in shape if isinstance(size, torch.SymInt))
    return next((size.node.shape_env for size in sizes), None)


def _shared_buffers(exported: ExportedProgram) -> str:
    """The names of the first two tensors of the network's state that are different views of one memory."""
    by_memory: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in {**exported.state_dict, **exported.constants}.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.numel():
            continue
        other = by_memory.setdefault(tensor.untyped_storage().data_ptr(), (name, tensor))
        if other[0] != name:
            return f"{other[0]!r} and {name!r}"
    return ""


def _without_dropout(graph: fx.Graph) -> None:
    """Let the readers of dropout that is off read its input, which is what it returns."""
    for node, value in dropouts_off(graph):
        node.replace_all_uses_with(value)
        graph.erase_node(node)


def _copy(graph: fx.Graph) -> fx.Graph:
    fresh = fx.Graph()
    fresh.output(fresh.graph_copy(graph, {}))
    for node, copied in zip(graph.nodes, fresh.nodes, strict=True):
        copied.name = node.name  # torch.fx renames what is called like a builtin (`input`)
    return fresh


def _writes(graph: fx.Graph) -> bool:
    return any(
        isinstance(n.target, HigherOrderOperator)
        or (isinstance(n.target, OpOverload) and n.target._schema.is_mutable)
        for n in graph.nodes
        if n.op == "call_function"
    )


def _rename_in_place(graph: fx.Graph) -> bool:
    """Rename every in-place operator of the graph; False where one of them may be seen by others."""
    memory = _Memory()
    nodes = list(graph.nodes)
    order = {n: i for i, n in enumerate(nodes)}
    for i, node in enumerate(nodes):
        if node.op != "call_function":
            continue
        if isinstance(node.target, HigherOrderOperator):
            return False
        if not isinstance(node.target, OpOverload):
            memory.share(node, node.all_input_nodes)
            continue
        if not node.target._schema.is_mutable:
            memory.share(node, _may_alias(node, node.target))
            continue
        written = _written(node, node.target)
        if written is None:
            return False
        for other in memory.sharing(written):
            if other.op == "placeholder" or (
                other is not written and any(order.get(u, i) > i for u in other.users)
            ):
                return False
        target = _functional_form(node, node.target)
        if target is None:
            return False
        node.target = target
        for user in list(written.users):
            if order[user] > i:
                user.replace_input_with(written, node)
    return True


def writes_by_layout(exported: ExportedProgram, inputs: Sequence[fx.Node]) -> LayoutGuard | None:
    """What keeps inputs of another memory layout out, where that decides which writes show."""
    if not _writes(exported.graph):
        return None
    graph = _copy(exported.graph)
    inline_grad_regions(graph, exported)
    _without_dropout(graph)
    return layout_guard(graph, inputs, _may_alias)


class _Memory:
    """Which nodes may share memory: disjoint sets."""

    def __init__(self) -> None:
        self._set: dict[fx.Node, list[fx.Node]] = {}

    def sharing(self, node: fx.Node) -> list[fx.Node]:
        return self._set.get(node, [node])

    def share(self, node: fx.Node, others: list[fx.Node]) -> None:
        merged = [node]
        for group in {id(g): g for g in (self.sharing(o) for o in others)}.values():
            merged.extend(group)
        for member in merged:
            self._set[member] = merged


def _may_alias(node: fx.Node, op: OpOverload[Any, Any]) -> list[fx.Node]:
    schema = op._schema
    if is_hidden_view(op):
        return list(node.all_input_nodes)
    if any(r.alias_info is not None for r in schema.returns):
        names = {a.name for a in schema.arguments if a.alias_info is not None}
        bound = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        aliases: list[fx.Node] = []
        for name in names:
            fx.map_arg(bound.get(name), aliases.append)
        return aliases
    composite = op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    if composite and op._schema.name.removeprefix("aten::") not in _FRESH:
        return list(node.all_input_nodes)
    return []


def _written(node: fx.Node, op: OpOverload[Any, Any]) -> fx.Node | None:
    """The one operand that is written, if it is the first and only one."""
    marked = [
        i for i, a in enumerate(op._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    ]
    if marked != [0] or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    return node.args[0]


def _functional_form(node: fx.Node, op: OpOverload[Any, Any]) -> OpOverload[Any, Any] | None:
    namespace, name = op._schema.name.split("::")
    if namespace != "aten" or name.removesuffix("_") not in _ELEMENTWISE:
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    if packet is None or op._overloadname not in packet.overloads():
        return None
    written = node.args[0].meta.get("val")  # type: ignore[union-attr]
    for other in node.all_input_nodes:
        value = other.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype != written.dtype:  # type: ignore[union-attr]
            return None  # the functional operator would promote where the in-place one casts back
    functional: OpOverload[Any, Any] = getattr(packet, op._overloadname)
    same = [a.name for a in functional._schema.arguments] == [a.name for a in op._schema.arguments]
    return functional if same else None
