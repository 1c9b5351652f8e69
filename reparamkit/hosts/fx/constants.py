"""What a captured graph knows before it sees an input: its state, and whatever is computed from that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._library.utils import is_impure
from torch._ops import OpOverload

from reparamkit.capture.program import Program
from reparamkit.operators import properties


class Constants:
    """Finds the constant nodes of a program and evaluates them, in float64 where that is possible."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._nodes: set[fx.Node] = set()
        self._remembered: dict[fx.Node, Tensor] | None = None
        for node in program.graph.nodes:
            if program.is_constant(node) or (
                is_pure(node) and all(n in self._nodes for n in node.all_input_nodes)
            ):
                self._nodes.add(node)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def float64(self, node: fx.Node) -> Tensor:
        """The value on the CPU; floating values in float64, computed from the stored weights in float64."""
        if self._remembered is not None and node in self._remembered:
            return self._remembered[node]
        value: Tensor = _cpu64(self._value(node))
        if self._remembered is not None:
            self._remembered[node] = value
        return value

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Inside, no value is converted twice."""
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def recomputed_elements(self, node: fx.Node) -> int:
        """Elements that the network recomputes on every run to have this constant; none for a stored one."""
        count, seen, stack = 0, set(), [node]
        while stack:
            current = stack.pop()
            if current in seen or current.op == "get_attr":
                continue
            seen.add(current)
            value = current.meta.get("val")
            if isinstance(value, Tensor) and not _is_view(current):
                count += math.prod(hint(s) for s in value.shape)
            stack.extend(current.all_input_nodes)
        return count

    def is_shared(self, node: fx.Node) -> bool:
        """Whether something else is made of the stored tensors behind a constant."""
        while len(node.users) == 1 and len(node.all_input_nodes) == 1:
            (node,) = node.all_input_nodes
        return len(node.users) > 1

    def _value(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return self._program.state[str(node.target)].detach()
        order = dependencies_first(node)
        try:
            return _run(order, {n: _cpu64(self._value(n)) for n in order if n.op == "get_attr"})
        except RuntimeError:  # hard-coded number types that do not mix with float64
            return _run(order, {n: self._value(n) for n in order if n.op == "get_attr"})


def hint(size: int | torch.SymInt) -> int:
    """The captured size; 1 for one that depends on values and is not known."""
    if isinstance(size, int):
        return size
    known = size.node.hint
    return 1 if known is None else int(known)


def _is_view(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and any(
        result.alias_info is not None for result in node.target._schema.returns
    )


def is_pure(node: fx.Node) -> bool:
    """Whether a call gives the same for the same arguments, and does nothing else."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return node.op == "call_function" and getattr(node.target, "__module__", "") == "_operator"
    return _gives_the_same(node.target)


@cache
def _gives_the_same(operator: OpOverload) -> bool:
    if properties.is_uninitialised(str(operator)):
        return False
    return torch.Tag.nondeterministic_seeded not in operator.tags and not is_impure(operator)


def _cpu64(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.to("cpu")
        return value.double() if value.is_floating_point() else value
    return value


def dependencies_first(node: fx.Node) -> list[fx.Node]:
    """The node and all that it depends on, dependencies first."""
    order: list[fx.Node] = []
    seen: set[fx.Node] = set()
    stack = [(node, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            order.append(current)
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            stack.extend((n, False) for n in current.all_input_nodes)
    return order


def _run(order: list[fx.Node], values: dict[fx.Node, Any]) -> Any:
    with torch.no_grad():
        for node in order:
            if node not in values:
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values[order[-1]]
