"""What a captured graph does with gradients: regions under `no_grad`, and writes that can be differentiated.

torch.export puts what runs under `torch.no_grad()` into a graph of its own, and torch's functionalization
puts it back without a trace of where gradients stop; and it writes `x.copy_(y)` as `aten.copy`, which has no
derivative. A folded network that is trained would get other gradients, or none. So

    with no_grad(): z = f(y)     ──▶   z = f(detach(y))
    copy(x, y)                   ──▶   clone(expand_as(to(y), x))
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

aten = torch.ops.aten
_SET_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
_TRACED_KINDS = (InputKind.USER_INPUT, InputKind.PARAMETER)


def inline_grad_regions(graph: fx.Graph, exported: ExportedProgram) -> None:
    """Put the regions that run with gradients on or off into the graph around them, behind a detach."""
    specs = exported.graph_signature.input_specs
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    traced = {
        node: spec.kind in _TRACED_KINDS and _is_real(node)
        for node, spec in zip(placeholders, specs, strict=True)
    }
    for node in list(graph.nodes):
        if node in traced:
            continue
        if node.target is _SET_GRAD and _can_be_inlined(_body(node, exported.graph_module)):
            _inline(graph, node, exported.graph_module, traced)
        else:
            traced[node] = _is_traced(node, traced)
            if traced[node]:
                _spread(_written_operands(node), traced)
    for node in list(graph.nodes):
        if node.target in (aten.detach.default, aten.detach_.default) and not traced.get(node.args[0], True):
            node.replace_all_uses_with(node.args[0])  # of a constant: there is nothing to stop
            graph.erase_node(node)


def differentiable_copies(graph: fx.Graph) -> None:
    """Spell `aten.copy` out in operators that have a derivative."""
    if any("as_strided" in str(node.target) for node in graph.nodes):
        return  # strides may be read, and only `aten.copy` keeps those of what it overwrites
    for node in list(graph.nodes):
        if node.target is not aten.copy.default:
            continue
        into, value = node.args[:2]
        target, source = into.meta.get("val"), value.meta.get("val")
        if not (isinstance(target, Tensor) and isinstance(source, Tensor)) or target.device != source.device:
            continue
        with graph.inserting_before(node):
            if source.dtype != target.dtype:
                value = _called(graph, aten.to.dtype, (value, target.dtype), source.to(target.dtype))
            if _spelt(target.shape) != _spelt(source.shape):
                value = _called(graph, aten.expand_as.default, (value, into), target)
            copied = _called(graph, aten.clone.default, (value,), node.meta["val"])
        copied.meta |= {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
        node.replace_all_uses_with(copied)
        graph.erase_node(node)


def _spelt(shape: torch.Size) -> list[str]:
    # To ask torch whether two symbolic sizes are equal is to have it settle one of them for good.
    return [str(size) for size in shape]


def _called(graph: fx.Graph, target: OpOverload[Any, Any], args: tuple[Any, ...], value: Tensor) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta["val"] = value
    return node


def _body(node: fx.Node, owner: fx.GraphModule) -> fx.Graph:
    body: fx.Graph = getattr(owner, str(node.args[1].target)).graph  # type: ignore[union-attr]
    return body


def _can_be_inlined(body: fx.Graph) -> bool:
    return all(n.op in ("placeholder", "call_function", "output") for n in body.nodes)


def _inline(graph: fx.Graph, region: fx.Node, owner: fx.GraphModule, traced: dict[fx.Node, bool]) -> None:
    enabled, _, *operands = region.args
    body = _body(region, owner)
    values: dict[fx.Node, Any] = dict(
        zip((n for n in body.nodes if n.op == "placeholder"), operands, strict=True)
    )
    stopped: dict[fx.Node, fx.Node] = {}
    with graph.inserting_before(region):
        for node in body.nodes:
            if node.op != "call_function":
                continue
            inlined = values[node] = graph.node_copy(node, lambda n: values[n])
            traced[inlined] = bool(enabled) and _is_traced(inlined, traced)
            if enabled:
                continue
            written = _written_operands(inlined)
            with graph.inserting_before(inlined):
                for operand in inlined.all_input_nodes:
                    if operand in written or not traced.get(operand) or operand in stopped.values():
                        continue
                    if operand not in stopped:
                        with graph.inserting_before(inlined):
                            stopped[operand] = graph.call_function(aten.detach.default, (operand,))
                        stopped[operand].meta = dict(operand.meta)
                        traced[stopped[operand]] = False
                    inlined.replace_input_with(operand, stopped[operand])
        results: Any = fx.map_arg(body.output_node().args[0], lambda n: values[n])
    for item in list(region.users):
        assert item.target is operator.getitem
        item.replace_all_uses_with(results[item.args[1]])
        graph.erase_node(item)
    holder = region.args[1]
    graph.erase_node(region)
    if isinstance(holder, fx.Node) and not holder.users:
        graph.erase_node(holder)


def _written_operands(node: fx.Node) -> list[Any]:
    if not isinstance(node.target, OpOverload):
        return []
    arguments = node.target._schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    given = dict(zip((a.name for a in arguments), node.args, strict=False)) | dict(node.kwargs)
    return [given.get(name) for name in written]


def _is_traced(node: fx.Node, traced: dict[fx.Node, bool]) -> bool:
    """Whether a gradient may flow through the node."""
    if node.target in (aten.detach.default, aten.detach_.default):
        return False
    return any(traced.get(n, False) for n in node.all_input_nodes)


def _spread(written: list[Any], traced: dict[fx.Node, bool]) -> None:
    """What was written into is traced now, and so is all that may share its memory: whatever hangs on it."""
    pending = [n for n in written if isinstance(n, fx.Node)]
    while pending:
        node = pending.pop()
        if node in traced and not traced[node]:
            traced[node] = True
            pending += [*node.all_input_nodes, *node.users]


def _is_real(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
