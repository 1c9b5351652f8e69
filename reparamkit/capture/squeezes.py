"""Which axes a squeeze removes, where that depends on a size that varies.

    squeeze() of (batch, 64, 1, 1)      is (batch, 64), and (64,) for a batch of one

An axis of a fixed size is removed or not, once and for all, and `squeeze.dims` says which. An axis whose size
varies is removed at one size only. There all that follows has another number of axes than the graph was
read with. Where only operators follow that do the same on any number of axes, the squeeze stays as it is.
Anywhere else the size must not be one, and the squeeze leaves the axis alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

aten = torch.ops.aten

_SQUEEZES = (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
_ON_ANY_RANK = frozenset(
    (
        *(
            aten.linear,
            aten.softmax,
            aten._softmax,
            aten.log_softmax,
            aten._log_softmax,
            aten.argmax,
            aten.topk,
        ),
        *(
            aten.sigmoid,
            aten.tanh,
            aten.relu,
            aten.gelu,
            aten.silu,
            aten.hardswish,
            aten.dropout,
            aten.squeeze,
        ),
    )
)
"""What works along the last axis or element by element, or is never read as more than an opaque operator."""


def settle_squeezes(graph: fx.Graph) -> list[Any]:
    """Write every squeeze so that it says which axes go; returns the sizes that must not be one for that."""
    held: list[Any] = []
    for node in list(graph.nodes):
        if node.target not in _SQUEEZES:
            continue
        value = node.args[0].meta.get("val")
        if not isinstance(value, Tensor):
            continue
        axes = _asked(node, value.ndim)
        varying = [size for axis in axes if (size := _formula(value.shape[axis])) is not None]
        if varying and (any(_depends_on_data(size) for size in varying) or _suits_any_rank(node)):
            _keep(graph, node, axes)
            continue
        held += varying
        removed = [axis for axis in axes if _formula(value.shape[axis]) is None and value.shape[axis] == 1]
        if removed:
            node.target, node.args, node.kwargs = aten.squeeze.dims, (node.args[0], removed), {}
        else:
            node.target, node.args, node.kwargs = aten.alias.default, (node.args[0],), {}
    return held


def varying_squeezes(graph: fx.Graph) -> list[Any]:
    """The sizes, as formulas, that a squeeze of any kind may remove; for a graph that torch traces anew."""
    varying: list[Any] = []
    for node in graph.nodes:
        if isinstance(node.target, OpOverload) and node.target.overloadpacket in (
            aten.squeeze,
            aten.squeeze_,
        ):
            value = node.args[0].meta.get("val")
            if isinstance(value, Tensor):
                sizes = (_formula(value.shape[axis]) for axis in _asked(node, value.ndim))
                varying += [size for size in sizes if size is not None and not _depends_on_data(size)]
    return varying


def shapes_unknown(graph: fx.Graph) -> set[fx.Node]:
    """Every value behind a squeeze of which it is not known which axes it removes."""
    unknown: set[fx.Node] = set()
    for node in graph.nodes:
        if node.target in _SQUEEZES[:2] or any(operand in unknown for operand in node.all_input_nodes):
            unknown.add(node)
    return unknown


def _keep(graph: fx.Graph, node: fx.Node, axes: list[int]) -> None:
    """Leave it to the run which axes go: `squeeze.dims` is kept for what is known."""
    if node.target is not aten.squeeze.dims:
        return
    current: Any = node.args[0]
    with graph.inserting_before(node):
        for axis in sorted(axes, reverse=True):
            current = graph.call_function(aten.squeeze.dim, (current, axis))
            current.meta = dict(node.meta)
    node.replace_all_uses_with(current)
    graph.erase_node(node)


def _asked(node: fx.Node, ndim: int) -> list[int]:
    asked: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if asked is None:
        return list(range(ndim))
    return [axis % ndim for axis in (asked if isinstance(asked, (list, tuple)) else [asked])] if ndim else []


def _formula(size: int | torch.SymInt) -> Any:
    """None for a number."""
    if isinstance(size, int) or size.node.expr.is_number:
        return None
    return size.node.expr


def _depends_on_data(formula: Any) -> bool:
    return any(str(symbol).startswith("u") for symbol in formula.free_symbols)


def _suits_any_rank(squeeze: fx.Node) -> bool:
    """Whether all that follows does the same on any number of axes."""
    seen, pending = {squeeze}, [squeeze]
    while pending:
        for user in pending.pop().users:
            if user in seen or user.op == "output":
                continue
            if not isinstance(user.target, OpOverload) or user.target.overloadpacket not in _ON_ANY_RANK:
                return False
            seen.add(user)
            pending.append(user)
    return True
