"""Calls of one operator with the same arguments: one value.

    c(pad(x)) + d(pad(x))   ──▶   p = pad(x),  c(p) + d(p)

Branches that begin alike then have one source. Only operators of torch's own that are pure and not random,
and no norm that keeps statistics; a value that the network hands out stays: its caller may write into it.
"""

from __future__ import annotations

from torch import fx
from torch._ops import OpOverload

from reparamkit.hosts.fx.calls import shown_nodes
from reparamkit.hosts.fx.constants import is_pure


def share_equal_calls(graph: fx.Graph) -> None:
    """Let all readers of equal calls read the first one."""
    shown = shown_nodes(graph)
    first_of: dict[tuple[object, str, str], fx.Node] = {}
    for node in list(graph.nodes):
        if not is_pure(node) or (isinstance(node.target, OpOverload) and not _is_a_value(node, node.target)):
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))  # a node's repr is its name, 1 is not 1.0
        first = first_of.setdefault(key, node)
        if first is not node and node not in shown:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _is_a_value(node: fx.Node, operator: OpOverload) -> bool:
    """Other libraries' may be random without saying so; norms that train write into their statistics."""
    if operator.namespace != "aten":
        return False
    names = [argument.name for argument in operator._schema.arguments]
    if "running_mean" not in names:
        return True
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    return any(given.get(word) is False for word in ("training", "use_input_stats"))
