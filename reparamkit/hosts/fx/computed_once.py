"""Constants that a network computes on every call are computed once, and stored.

    bias = table[index].permute(2, 0, 1)          bias: a parameter of the folded network
    attention + bias                      ──▶     attention + bias

A value that depends on parameters and buffers alone is the same on every call (OFT's Cayley rotation, a
relative position bias that is gathered from a table, a mask, normalised embeddings of classes). Stored are
the numbers that the captured operators give in their own number type, to the last bit. A value that a
gradient reaches becomes a parameter: it is trained as it is, no longer by way of what it was computed from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.hosts.fx.calls import one_memory, shown_nodes
from reparamkit.hosts.fx.constants import Constants

_MOST = 2**20  # elements of a value that is stored, unless it is hardly larger than what it is computed from
_GROWTH = 4
_CHECKS = ("aten._assert", "aten.sym_constrain_range")
_CANNOT = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


@dataclass(frozen=True)
class Computed:
    """A constant of the captured graph with its value; `trained` says that a gradient reaches it."""

    node: fx.Node
    value: Tensor
    trained: bool
    persistent: bool


def computed_constants(
    graph: fx.Graph, constants: Constants, state: Mapping[str, Tensor], passing: Iterable[str]
) -> list[Computed]:
    """The constants of a graph that are worth storing, as late in their computation as they are constant.

    `passing` names the tensors that are no part of the state dict. Constants that the network returns are
    left alone: its caller may write into what it gets.
    """
    values, shown = _Values(state), shown_nodes(graph)
    wanted: dict[fx.Node, Computed] = {}
    passing = frozenset(passing)
    for node in graph.nodes:
        if node.op != "call_function" or node not in constants or all(u in constants for u in node.users):
            continue
        try:
            node = values.last_computed(node)
            value = values.of(node)
        except _CANNOT:
            continue
        if node in wanted or not isinstance(value, Tensor) or node in shown:
            continue
        sources = [n for n in _above(node) if n.op == "get_attr"]
        if any(one_memory(values.of(n), value) for n in sources):
            continue  # nothing but a view of what is stored already
        if value.numel() > max(_MOST, _GROWTH * sum(math.prod(state[str(n.target)].shape) for n in sources)):
            continue
        persistent = any(str(n.target) not in passing for n in sources)
        wanted[node] = Computed(node, value.detach().clone(), value.requires_grad, persistent)
    return list(wanted.values())


def settled_checks(graph: fx.Graph, constants: Constants, state: Mapping[str, Tensor]) -> list[fx.Node]:
    """The assertions on constants alone that hold: they would hold on every call."""
    values = _Values(state)
    checks = []
    for node in graph.nodes:
        reads = node.all_input_nodes
        if node.op != "call_function" or node.users or not reads or not all(n in constants for n in reads):
            continue
        if not str(node.target).startswith(_CHECKS):
            continue
        with suppress(*_CANNOT):
            for read in reads:
                values.of(read)
            values.of(node)
            checks.append(node)
    return checks


class _Values:
    """The values of constants, by the captured operators, in their own number types, on the CPU."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        self._known: dict[fx.Node, Any] = {}

    def of(self, node: fx.Node) -> Any:
        if node not in self._known:
            for above in reversed(_above(node)):
                if above not in self._known:
                    self._known[above] = self._run(above)
        return self._known[node]

    def _run(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            tensor = self._state[str(node.target)]
            return tensor.detach().cpu().requires_grad_(tensor.requires_grad)
        with torch.enable_grad():
            return run(node.target, node.args, node.kwargs, self._known.__getitem__)

    def last_computed(self, node: fx.Node) -> fx.Node:
        """The node, or what it is an expanded or cut view of."""
        while isinstance(node.target, OpOverload) and node.all_input_nodes:
            base = node.all_input_nodes[0]
            mine, its = self.of(node), self.of(base)
            if not one_memory(mine, its) or (isinstance(its, Tensor) and mine.numel() == its.numel()):
                break
            node = base
        return node


def run(target: Any, args: Any, kwargs: Any, value: Callable[[fx.Node], Any]) -> Any:
    """One operator on the CPU, wherever the network has it run."""
    args, kwargs = fx.map_arg((args, kwargs), value)
    args, kwargs = fx.node.map_aggregate(
        (args, kwargs), lambda a: torch.device("cpu") if isinstance(a, torch.device) else a
    )
    return target(*args, **kwargs)


def _above(node: fx.Node) -> list[fx.Node]:
    """The node and all that it is computed from, each before what that is computed from."""
    order: dict[fx.Node, None] = {}
    stack = [node]
    while stack:
        current = stack.pop()
        order.pop(current, None)
        order[current] = None
        stack.extend(current.all_input_nodes)
    return list(order)
