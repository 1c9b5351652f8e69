"""How many of each operator a graph calls, by the names that the field uses."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, fx, nn

from reparamkit.capture.constant_arguments import ConstantArguments
from reparamkit.capture.layouts import LayoutGuard
from reparamkit.capture.sizes import SizeGuards
from reparamkit.engine.layers import operators_of


def census(graph: fx.Graph, modules: dict[str, nn.Module] | None = None) -> dict[str, int]:
    """Operator -> number of calls on tensors, most frequent first; arithmetic on sizes is left out."""
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op == "call_module":
            counts.update(_operators((modules or {})[str(node.target)]))
        elif node.op == "call_function" and hasattr(node.target, "_schema"):
            value = node.meta.get("val")
            if value is None or isinstance(value, Tensor | list | tuple):
                counts[node.target._schema.name.split("::")[1]] += 1
    counts.pop("sym_size", None)
    return dict(counts.most_common())


def _operators(layer: nn.Module) -> list[str]:
    if isinstance(layer, SizeGuards | ConstantArguments | LayoutGuard):
        return []  # they look at the inputs and compute nothing
    return operators_of(layer)


def layer_name(layer: nn.Module) -> str:
    """The name of the operator that a layer is."""
    return _operators(layer)[0]
