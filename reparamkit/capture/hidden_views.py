"""Operators that may return a view of their input although nothing in torch's tables says so.

What is written through a view shows in what it is a view of. torch's functionalization goes by the schema of
an operator, or by a decomposition of it that computes into memory of its own, and loses such writes:

    dropout that is off, or drops nothing       its input
    unsafe_split, unsafe_chunk                  views of its input, declared as copies
    einsum of one operand, nothing summed       a permutation of its axes, or of its diagonal
    meshgrid                                    its inputs with axes of one, expanded

They are spelt out in operators that say that they are views before torch makes the graph functional.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

aten = torch.ops.aten
_DROPOUTS = frozenset(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"))
_UNSAFE = {
    aten.unsafe_split.Tensor: aten.split.Tensor,
    aten.unsafe_split_with_sizes.default: aten.split_with_sizes.default,
    aten.unsafe_chunk.default: aten.chunk.default,
}


def is_hidden_view(op: OpOverload[Any, Any]) -> bool:
    """Whether the operator shares its input's memory against its own schema."""
    return op in _UNSAFE


def spell_out_views(graph: fx.Graph) -> None:
    """Replace the operators by others that are views by their schema."""
    for node, value in dropouts_off(graph):
        node.target, node.args, node.kwargs = aten.alias.default, (value,), {}
    for node in list(graph.nodes):
        if node.target in _UNSAFE:
            node.target = _UNSAFE[node.target]
        elif node.target is aten.einsum.default and len(node.args[1]) == 1:
            _permutation(graph, node)
        elif node.target in (aten.meshgrid.default, aten.meshgrid.indexing):
            _grid(graph, node)


def dropouts_off(graph: fx.Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Every dropout that returns its input, and that input."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        if node.target._schema.name.removeprefix("aten::").rstrip("_") not in _DROPOUTS:
            continue
        names = [a.name for a in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        if not given["train"] or given["p"] == 0:
            yield node, given["input" if "input" in given else "self"]


def _permutation(graph: fx.Graph, node: fx.Node) -> None:
    """An einsum of one operand that sums nothing up is its diagonal over repeated letters, permuted."""
    operands: Any = node.args[1]
    value: fx.Node = operands[0]
    left, arrow, right = str(node.args[0]).replace(" ", "").partition("->")
    axes = value.meta["val"].ndim - len(left.replace("...", ""))
    spelt = "".join(map(str, range(axes))) if axes < 10 else ""
    left = left.replace("...", spelt)
    once = sorted(letter for letter in set(left) if left.count(letter) == 1)
    right = right.replace("...", spelt) if arrow else "".join(once)  # digits come before letters
    if set(left) != set(right) or len(set(right)) != len(right):
        return
    letters = list(left)
    with graph.inserting_before(node):
        for letter in sorted(set(left)):
            while letters.count(letter) > 1:
                first = letters.index(letter)
                second = letters.index(letter, first + 1)
                value = _called(graph, aten.diagonal.default, value, 0, first, second)
                letters = [x for i, x in enumerate(letters) if i not in (first, second)] + [letter]
    node.target = aten.permute.default
    node.args = (value, [letters.index(letter) for letter in right])


def _grid(graph: fx.Graph, node: fx.Node) -> None:
    values: Any = node.args[0]
    swapped = node.kwargs.get("indexing", "ij") == "xy" and len(values) > 1
    order = [1, 0, *range(2, len(values))] if swapped else list(range(len(values)))
    sizes = [values[i].meta["val"].numel() for i in order]
    if not all(isinstance(size, int) for size in sizes):
        return  # nor can anything be written into an expanded tensor
    grids = []
    with graph.inserting_before(node):
        for i, value in enumerate(values):
            shape = [sizes[place] if k == i else 1 for place, k in enumerate(order)]
            viewed = _called(graph, aten.view.default, value, shape)
            grids.append(_called(graph, aten.expand.default, viewed, sizes))
    for user in list(node.users):
        user.replace_all_uses_with(grids[user.args[1]])  # type: ignore[index]
        graph.erase_node(user)
    graph.erase_node(node)


def _called(graph: fx.Graph, target: OpOverload[Any, Any], value: fx.Node, *rest: Any) -> fx.Node:
    node = graph.call_function(target, (value, *rest))
    node.meta["val"] = target(value.meta["val"], *rest)
    return node
