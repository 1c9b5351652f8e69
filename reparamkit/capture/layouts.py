"""Writes that show or do not show, depending on how the inputs lie in memory.

`y.permute(0, 2, 3, 1).reshape(-1).add_(1)` changes y where the reshape is a view, and a copy of it elsewhere;
which of both it is depends on the strides of y, and these on those of the inputs (channels last, a transposed
tensor). So does `y.to(memory_format=...)`, which is y itself where y lies so already. A graph holds one of
the two. A network with such a write takes contiguous inputs only.

A call of `contiguous()` that had nothing to do in the example is in no graph, and is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from reparamkit.errors import CannotCapture

aten = torch.ops.aten
_BY_LAYOUT = frozenset(
    (
        *(aten.reshape.default, aten.reshape_as.default, aten.flatten.using_ints),
        *(aten.contiguous.default, aten.ravel.default),
    )
)
_MADE = tuple(f"aten.{name}" for name in ("zeros", "ones", "full", "empty", "arange", "new_", "rand"))
Alias = Callable[[fx.Node, OpOverload[Any, Any]], list[fx.Node]]


class LayoutGuard(nn.Module):
    """Takes the network's input tensors; raises `ValueError` if one is not contiguous."""

    _is_impure = True  # so that fx keeps the call, whose result nobody reads

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> None:
        """Any shapes; nothing is computed."""
        if torch.compiler.is_compiling():
            return  # a traced tensor has the layout of its example
        for name, tensor in zip(self.names, inputs, strict=True):
            if not _is_contiguous(tensor):
                raise ValueError(
                    "the network writes through a reshape, or the like, that shares memory in "
                    f"one layout only, and was captured for contiguous tensors: give {name}.contiguous()"
                )


def layout_guard(graph: fx.Graph, inputs: Sequence[fx.Node], alias: Alias) -> LayoutGuard | None:
    """What checks the inputs of a graph as it was captured, writes in place included; None for no need.

    `alias` tells which operands a node may share memory with.

    Raises:
        CannotCapture: there is need, and the example is not contiguous.
    """
    if not _depends_on_layout(graph, alias):
        return None
    tensors = [n for n in inputs if isinstance(n.meta.get("val"), Tensor)]
    if not all(_is_contiguous(n.meta["val"]) for n in tensors):
        reason = "it writes through a reshape, or the like, that shares memory in one layout only"
        raise CannotCapture(
            f"the model cannot be captured with this example: {reason}. Give contiguous tensors",
            reason,
        )
    return LayoutGuard([n.name for n in tensors])


def _is_contiguous(tensor: Tensor) -> bool:
    expected: Any = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected = expected * size
    return True


def _depends_on_layout(graph: fx.Graph, alias: Alias) -> bool:
    nodes = [n for n in graph.nodes if n.op == "call_function" and isinstance(n.target, OpOverload)]
    order = {node: i for i, node in enumerate(graph.nodes)}
    writes = [(n, n.args[0]) for n in nodes if n.target._schema.is_mutable and isinstance(n.args[0], fx.Node)]
    candidates = [n for n in nodes if _is_view_by_layout(n)] if writes else []
    return any(_matters(node, nodes, writes, order, alias) for node in candidates)


def _matters(
    view: fx.Node,
    nodes: list[fx.Node],
    writes: list[tuple[fx.Node, Any]],
    order: dict[fx.Node, int],
    alias: Alias,
) -> bool:
    """Whether a write on one side of the view is seen on the other, if they share memory."""
    group: dict[fx.Node, set[fx.Node]] = {}
    for node in nodes:
        operands: list[Any] = [view] if node is view else [node, *alias(node, node.target)]  # type: ignore[arg-type]
        if node.target._schema.is_mutable:  # type: ignore[union-attr]
            operands.append(node.args[0])
        merged = set().union(*(group.get(n, {n}) for n in operands), {node})
        for member in merged:
            group[member] = merged
    source = view.args[0]
    sides = group.get(source, {source}), group[view]  # type: ignore[arg-type]
    if sides[0] is sides[1]:
        return False
    for write, written in writes:
        for here, there in (sides, sides[::-1]):
            seen = any(
                n.op in ("placeholder", "get_attr") or any(order[user] > order[write] for user in n.users)
                for n in there
            )
            if order[write] > order[view] and written in here and seen:
                return True
    return False


def _is_view_by_layout(node: fx.Node) -> bool:
    """Whether it depends on the strides of its operand if the result shares memory with it."""
    if node.target in _BY_LAYOUT:
        return not _is_view_anyhow(node)
    if getattr(node.target, "overloadpacket", None) is not aten.to:
        return False
    schema = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(schema, node.args, strict=False)), **node.kwargs}
    before, after = given["self"].meta.get("val"), node.meta.get("val")
    if given.get("copy") or given.get("memory_format") in (None, torch.preserve_format):
        return False
    return not (isinstance(before, Tensor) and isinstance(after, Tensor)) or before.dtype == after.dtype


def _is_view_anyhow(node: fx.Node) -> bool:
    """Whether the result is a view whatever the strides are: axes are only split, or it was made here."""
    source: Any = node.args[0]
    before, after = source.meta.get("val"), node.meta.get("val")
    if (
        not (isinstance(before, Tensor) and isinstance(after, Tensor))
        or node.target is aten.contiguous.default
    ):
        return False
    left = [str(size) for size in after.shape]
    for size in before.shape:
        if left and left[0] == str(size):
            left.pop(0)
            continue
        if not isinstance(size, int):
            return False
        product = 1
        while left and product < size and left[0].isdigit():
            product *= int(left.pop(0))
        if product != size:
            return False
    return all(size == "1" for size in left)
