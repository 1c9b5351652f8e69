"""Networks that change their own weights when they run.

Where that changes nothing any more once they have run (a weight that is clamped, a kernel that is put
together from others), the network is still one function. Where each run gives another answer it is none.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reparamkit.errors import CannotCapture
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.quiet import quiet

_ALIKE = 1e-5


def settled_copy(model: nn.Module, args: Args, kwargs: Kwargs, names: Iterable[str] = ()) -> nn.Module:
    """A copy of the model that has run once, and holds the weights that it has given itself.

    Args:
        names: of the weights that it changes, for the error.

    Raises:
        CannotCapture: it answers otherwise whenever it runs, or cannot be copied.
    """
    named = f" ({', '.join(map(repr, sorted(names)))})" if names else ""
    try:
        duplicate = copy.deepcopy(model)
    except Exception as error:
        raise _refusal(f"it changes its own weights{named} when it runs, and cannot be copied") from error
    with quiet(), torch.no_grad():
        first = duplicate(*_copies(args), **_copies(kwargs))
        given = [t.detach().clone() for t in duplicate.parameters()]
        second = duplicate(*_copies(args), **_copies(kwargs))
    if not (_alike(first, second) and _alike(given, list(duplicate.parameters()))):
        raise _refusal(f"it changes its own weights{named} whenever it runs, and answers otherwise each time")
    return duplicate


def _refusal(reason: str) -> CannotCapture:
    return CannotCapture(
        f"the model cannot be captured as one graph: {reason}. Change a copy of the weight (w = "
        "self.weight + x for self.weight += x), or do it once, before folding",
        reason,
    )


def _alike(one: Any, other: Any) -> bool:
    pairs = list(zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True))
    return all(_same(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    scale = float(one.abs().max())
    return torch.allclose(one, other, rtol=0, atol=_ALIKE * scale, equal_nan=True)


def _copies(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)
