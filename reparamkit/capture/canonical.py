"""One spelling for what has several, so that operators are read in one dialect.

Sizes, too, are read off the network's inputs where that is possible: an intermediate tensor that is read for
its size alone would be kept alive by it, although a fold could remove it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from reparamkit.capture.input_sizes import InputSizes
from reparamkit.capture.squeezes import settle_squeezes, shapes_unknown

aten = torch.ops.aten
_RUNNING_STATISTICS_NORM = aten._native_batch_norm_legit_no_training.default
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten._to_copy.default)
_LIKE_ANOTHER = {
    aten.reshape_as.default: aten.reshape.default,
    aten.view_as.default: aten.reshape.default,
    aten.expand_as.default: aten.expand.default,
}


def canonicalise(graph: fx.Graph) -> list[Any]:
    """One spelling for what has several; returns the sizes, as formulas, that must not be one for that."""
    held = settle_squeezes(graph)
    unknown = shapes_unknown(graph)
    sizes = InputSizes(graph)
    for node in list(graph.nodes):
        if node.op != "call_function" or any(operand in unknown for operand in node.all_input_nodes):
            continue
        if node.target is operator.getitem and _first(node).target is _RUNNING_STATISTICS_NORM:
            _as_batch_norm(graph, node)
        elif node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in _CASTS and _changes_nothing(node):
            _without_cast(graph, node)
        elif node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # a folded layer may leave its output in other strides
        elif node.target in _LIKE_ANOTHER:
            _shape_spelt_out(graph, node, sizes)
        elif node.target is aten.sym_size.int:
            _read_size_off_an_input(graph, node, sizes)
    graph.eliminate_dead_code()
    return held


def _as_batch_norm(graph: fx.Graph, item: fx.Node) -> None:
    norm = _first(item)
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


def _without_cast(graph: fx.Graph, node: fx.Node) -> None:
    """A cast to what the value already is hands it on, or copies it if it was told to."""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    copies = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if node.target is aten._to_copy.default or copies.get("copy", False):
        node.target, node.args, node.kwargs = aten.clone.default, (_first(node),), {}
        return
    node.replace_all_uses_with(_first(node))
    graph.erase_node(node)


def _changes_nothing(node: fx.Node) -> bool:
    before, after = _first(node).meta.get("val"), node.meta.get("val")
    return (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and before.dtype == after.dtype
        and before.device == after.device
    )


def _read_size_off_an_input(graph: fx.Graph, node: fx.Node, sizes: InputSizes) -> None:
    """Keep a size from holding alive an intermediate tensor that a fold would remove."""
    value = node.meta.get("val")
    if isinstance(value, int):
        node.replace_all_uses_with(value)  # type: ignore[arg-type]
        graph.erase_node(node)
        return
    if _first(node).op == "placeholder" or not isinstance(value, torch.SymInt):
        return
    size = sizes.of(value)
    if size is not None:
        node.replace_all_uses_with(size)
        graph.erase_node(node)


def _shape_spelt_out(graph: fx.Graph, node: fx.Node, sizes: InputSizes) -> None:
    """`x.reshape_as(y)` reads nothing of y but its sizes, where these are known without it."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return
    shape = [size if isinstance(size, int) else sizes.of(size) for size in value.shape]
    if any(size is None for size in shape):
        return
    node.target = _LIKE_ANOTHER[node.target]  # type: ignore[index]
    node.args, node.kwargs = (_first(node), shape), {}


def _first(node: fx.Node) -> fx.Node:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    return operand


def symbolic_sizes(node: fx.Node) -> Iterator[tuple[int, torch.SymInt]]:
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        for axis, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                yield axis, size
