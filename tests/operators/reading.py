"""What the engine understands of one operator, evaluated by the oracle of the algebra's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.engine.graph import Node
from reparamkit.hosts.fx.read import FxHost
from reparamkit.operators import Affine
from tests.algebra.maps import apply
from tests.nets import Net


def read(function: Callable[..., Any], x: Tensor, operator: str, **parts: nn.Module | Tensor) -> Node:
    """The one node of the operator named, of `function(self, x)`."""
    net = Net(function, **parts).eval()
    host = FxHost(capture(net, (x,), dynamic=False))
    (found,) = (n for n in host.nodes if n.operator.startswith(f"aten.{operator}."))
    return found


def evaluated(node: Node, x: Tensor) -> Tensor:
    """The node's meaning on `x`, which all its operands are."""
    assert isinstance(node.meaning, Affine), node.reason
    total: Any = 0
    for part in node.meaning.terms:
        numbers = part.load()
        assert numbers.structure == part.structure or numbers.structure.has_bias <= part.structure.has_bias
        dims = getattr(part.structure, "dims", 0)
        split = x.ndim - dims - 1
        y = apply(numbers, x.reshape(-1, *x.shape[split:])) if dims or x.ndim > 1 else apply(numbers, x[None])
        total = total + y.reshape(*x.shape[:split], *y.shape[1:])
    return torch.as_tensor(total)
