"""What is left of a small network: the operators of its fold, checked against itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, assert_same, noise, randomised

MOVES = frozenset(
    (
        *("reshape", "flatten", "permute", "transpose", "slice", "narrow", "select"),
        *("unbind", "chunk", "split", "split_with_sizes"),
    )
)


Parts = dict[str, nn.Module | Tensor]


def left(
    function: Callable[..., Any], x: Tensor, dynamic: Any = False, **parts: nn.Module | Tensor
) -> dict[str, int]:
    """Operator -> how often it is left, those that only move values left out."""
    net = randomised(Net(function, **parts).double()).eval()
    outcome = fold_program(capture(net, (x,), dynamic=dynamic))
    assert not outcome.undone
    assert outcome.in_place
    assert_same(net(x), outcome.module(x))
    if dynamic:
        other = noise(3, *x.shape[1:], seed=9)
        assert_same(net(other), outcome.module(other))
    counts = census(outcome.module.graph, dict(outcome.module.named_modules()))
    return {name: count for name, count in counts.items() if name not in MOVES}
