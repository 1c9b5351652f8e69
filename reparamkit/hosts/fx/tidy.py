"""Reshapes that undo each other, left over where a fold took away what lay between them.

reshape(flatten(x), sizes of x)   ──▶   x
"""

from __future__ import annotations

from torch import Tensor, fx

from reparamkit.operators import properties


def undo_round_trips(graph: fx.Graph) -> None:
    """Read the first value instead of the last where the shape only changes, and changes back."""
    for node in list(graph.nodes):
        if not properties.is_reshape(str(node.target)):
            continue
        root, steps = node, 0
        while properties.is_reshape(str(root.target)):
            root, steps = root.args[0], steps + 1
        if steps > 1 and _sizes(root) is not None and _sizes(root) == _sizes(node):
            node.replace_all_uses_with(root, delete_user_cb=lambda user: user.op != "output")


def _sizes(node: fx.Node) -> tuple[str, ...] | None:
    value = node.meta.get("val")
    return tuple(map(str, value.shape)) if isinstance(value, Tensor) else None
