"""Sizes of intermediate tensors, computed from those of the inputs.

A tensor that is read for its size alone is kept alive by that, although a fold could remove it. Where a size
is a formula of the inputs' sizes, such as ⌊(H - 1)/2⌋ + 1, the formula is written into the graph instead.
"""

from __future__ import annotations

from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx
from torch.fx.proxy import TraceError
from torch.utils._sympy.functions import CleanDiv, FloorDiv, Max, Min, Mod, PythonMod
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

_WRITTEN = (FloorDiv, CleanDiv, Mod, PythonMod, Max, Min)
"""Functions of integers that have an operator, or a function of torch's, which a graph can hold."""


class InputSizes:
    """Nodes for sizes, each written down once, in front of everything that computes."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._axes: dict[sympy.Expr, tuple[fx.Node, int]] = {}
        self._nodes: dict[sympy.Expr, fx.Node | None] = {}
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self._latest = inputs[-1] if inputs else None
        """The last input, or the last node that was written behind it."""
        for node in inputs:
            value = node.meta.get("val")
            for axis, size in enumerate(value.shape if isinstance(value, Tensor) else ()):
                if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                    self._axes.setdefault(size.node.expr, (node, axis))

    def of(self, size: torch.SymInt) -> fx.Node | None:
        """The node that computes this size; None if that takes more than the inputs' sizes and arithmetic."""
        expression = size.node.expr
        if expression in self._nodes:
            return self._nodes[expression]
        if self._latest is None or not expression.free_symbols <= self._axes.keys():
            return None
        symbols = {}
        if not expression.is_symbol:
            symbols = {s: self._symbol(s) for s in sorted(expression.free_symbols, key=str)}
        before = self._latest
        with self._graph.inserting_before(before.next):
            if expression.is_symbol:
                reading = self._graph.call_function(torch.ops.aten.sym_size.int, self._axes[expression])
            else:
                written = self._written(before, symbols, expression)
                if written is None:
                    self._nodes[expression] = None
                    return None
                reading = written
        reading.meta["val"] = size
        self._nodes[expression] = self._latest = reading
        return reading

    def _written(
        self, before: fx.Node, symbols: dict[sympy.Symbol, fx.Proxy], expression: sympy.Expr
    ) -> fx.Node | None:
        """The formula as nodes behind `before`; None, and no node, for one that cannot be written so."""
        if not all(isinstance(function, _WRITTEN) for function in expression.atoms(sympy.Function)):
            return None  # math.ceil, round and the like want a number
        end = before.next
        try:
            result = sympy_interp(PythonReferenceAnalysis, symbols, expression)
            if isinstance(result, fx.Proxy):
                self._evaluate(before, result.node)
                return result.node
        except (TraceError, TypeError, NotImplementedError, AttributeError):
            pass  # an operator that wants a number all the same
        while end.prev is not before:
            self._graph.erase_node(end.prev)
        return None

    def _symbol(self, symbol: sympy.Symbol) -> fx.Proxy:
        node, axis = self._axes[symbol]
        reading = self.of(node.meta["val"].shape[axis])
        assert reading is not None
        return fx.Proxy(reading)

    def _evaluate(self, after: fx.Node, last: fx.Node) -> None:
        """Give the nodes between their own values, as every node of a captured graph has one."""
        node = after.next
        while node is not last:
            value: Any = fx.map_arg(node.args, lambda n: n.meta["val"])
            node.meta["val"] = node.target(*value)  # type: ignore[operator]
            node = node.next
