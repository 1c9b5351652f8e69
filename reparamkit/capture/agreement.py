"""Does the captured graph answer the user's own example as the model does?

torch.export takes a size of 1 for a constant, so a batch of one is captured as a batch of two that may
vary. A model that looks at its batch size (`if len(x) == 1`) may then have been captured on another path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

_ALIKE = 1e-2


def two_of_each(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The same example with a batch of two; None unless every tensor has a batch of one."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors or any(t.ndim == 0 or t.shape[0] != 1 for t in tensors):
        return None
    twice = [torch.cat([x, x]) if isinstance(x, Tensor) else x for x in leaves]
    found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(twice, spec)
    return found


def batch_is_free(exported: ExportedProgram) -> bool:
    """Whether the first axis of every input tensor may vary."""
    user = set(exported.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder" and n.name in user]
    return all(
        isinstance(v.shape[0], torch.SymInt) and not v.shape[0].node.expr.is_number
        for v in values
        if isinstance(v, Tensor)
    )


def outputs_alike(found: Any, expected: Any) -> bool:
    """Whether the outputs have the same shapes and, roughly, the same values."""
    one, other = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    return len(one) == len(other) and all(_alike(a, b) for a, b in zip(one, other, strict=True))


def _alike(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or a.numel() == 0:
        return True
    difference, scale = (a - b).abs().max(), b.abs().max()
    return bool(difference <= _ALIKE * scale) or not bool(torch.isfinite(scale))
