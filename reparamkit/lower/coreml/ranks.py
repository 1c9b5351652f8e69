"""Tensors of six axes, of which Core ML has none.

Windowed attention makes queries, keys and values of one tensor:

    x.view(b, w, n, 3, heads, d).permute(3, 0, 4, 1, 2, 5).unbind(0)

Taking each of the three before the last axis is split gives the same, with five axes at most:

    x.view(b, w, n, 3, heads · d).select(3, i).view(b, w, n, heads, d).permute(0, 3, 1, 2, 4)
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

MOST_AXES = 5
_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)


def unbound_early(graph: fx.Graph) -> None:
    """Select before splitting, where a view of six axes is permuted and taken apart along one of them."""
    for unbind in list(graph.nodes):
        if unbind.target is not aten.unbind.int:
            continue
        permute = unbind.args[0]
        if not (_called(permute, aten.permute.default) and len(permute.users) == 1):
            continue
        view = permute.args[0]
        if not (view.op == "call_function" and view.target in _VIEWS and len(view.users) == 1):
            continue
        shape = list(view.meta["val"].shape)
        order = [axis % len(shape) for axis in permute.args[1]]
        axis = order[(unbind.args[1] if len(unbind.args) > 1 else 0) % len(shape)]
        behind = shape[axis + 1 :]
        if len(shape) <= MOST_AXES or axis + 2 > MOST_AXES or not all(type(n) is int for n in shape):
            continue
        _take_early(graph, unbind, view.args[0], shape, axis, order, math.prod(behind))


def _take_early(
    graph: fx.Graph,
    unbind: fx.Node,
    source: fx.Node,
    shape: list[int],
    axis: int,
    order: list[int],
    behind: int,
) -> None:
    left = [each - (each > axis) for each in order if each != axis]
    with graph.inserting_before(unbind):
        merged = add_call(graph, unbind, aten.reshape.default, source, [*shape[: axis + 1], behind])
        parts = []
        for place in range(shape[axis]):
            part = add_call(graph, unbind, aten.select.int, merged, axis, place)
            part = add_call(graph, unbind, aten.reshape.default, part, [*shape[:axis], *shape[axis + 1 :]])
            parts.append(add_call(graph, unbind, aten.permute.default, part, left))
    for user in list(unbind.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(parts[user.args[1]])  # type: ignore[index]
        graph.erase_node(user)


def merged_axes(graph: fx.Graph) -> None:
    """Axes that stay neighbours while six or more are permuted between two views are one axis.

    coremltools has a way of its own for such permutations, which gets some of them wrong (a swap of the last
    two of six axes); it looks at no permutation of fewer.
    """
    for permute in list(graph.nodes):
        if permute.target not in (aten.permute.default, aten.transpose.int):
            continue
        view = permute.args[0]
        shape = list(permute.args[0].meta["val"].shape)
        ends = _views_behind(permute)
        if len(shape) <= MOST_AXES or view.target not in _VIEWS or not ends:
            continue
        runs = _neighbours(_order(permute, len(shape)))
        if len(runs) > MOST_AXES or not all(type(size) is int for size in shape):
            continue
        before = sorted(runs)
        sizes = [math.prod(shape[axis] for axis in run) for run in before]
        with graph.inserting_before(permute):
            merged = add_call(graph, permute, aten.reshape.default, view.args[0], sizes)
            order = [before.index(run) for run in runs]
            permuted = add_call(graph, permute, aten.permute.default, merged, order)
        for end in ends:
            end.args = (permuted, *end.args[1:])
            end.target = aten.reshape.default


def _views_behind(node: fx.Node) -> list[fx.Node]:
    """The views that read a node, through copies; none if anything else does."""
    views = []
    for user in node.users:
        if user.target in _VIEWS:
            views.append(user)
        elif user.target is aten.clone.default and (behind := _views_behind(user)):
            views += behind
        else:
            return []
    return views


def _order(permute: fx.Node, rank: int) -> list[int]:
    if permute.target is aten.permute.default:
        axes: Any = permute.args[1]
        return [int(axis) % rank for axis in axes]
    order = list(range(rank))
    first, second = (int(axis) % rank for axis in permute.args[1:3])  # type: ignore[arg-type]
    order[first], order[second] = second, first
    return order


def _neighbours(order: list[int]) -> list[list[int]]:
    """Runs of axes that follow each other before and after."""
    runs = [order[:1]]
    for axis in order[1:]:
        if axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def flat_linear(graph: fx.Graph) -> None:
    """A linear layer of more axes than Core ML has is one of two: it looks at the last one only."""
    for linear in list(graph.nodes):
        if linear.target is not aten.linear.default or linear.meta["val"].ndim <= MOST_AXES:
            continue
        source, *weights = linear.args
        with graph.inserting_before(linear):
            flat = add_call(graph, linear, aten.reshape.default, source, [-1, source.meta["val"].shape[-1]])
            product = add_call(graph, linear, aten.linear.default, flat, *weights)
        for user in list(linear.users):
            if user.target in _VIEWS:
                user.replace_input_with(linear, product)
        if linear.users:
            shape = list(linear.meta["val"].shape)
            with graph.inserting_before(linear):
                whole = add_call(graph, linear, aten.reshape.default, product, shape)
            linear.replace_all_uses_with(whole)
        graph.erase_node(linear)


def add_call(graph: fx.Graph, like: fx.Node, target: torch._ops.OpOverload, *arguments: object) -> fx.Node:
    """A new operator that belongs where `like` does."""
    node = graph.call_function(target, arguments)  # type: ignore[arg-type]
    values = [each.meta["val"] if isinstance(each, fx.Node) else each for each in arguments]
    node.meta = {"nn_module_stack": like.meta.get("nn_module_stack"), "val": target(*values)}
    return node


def _called(node: object, target: torch._ops.OpOverload) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target is target
