"""A map per channel behind a concatenation goes into the layers above it, if all of them can take it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import PairNet, assert_same, fold, nodes_of, noise, randomised

PARTS: dict[str, nn.Module] = {
    "a": nn.Conv2d(3, 4, 1),
    "b": nn.Conv2d(5, 6, 3, padding=1, bias=False),
    "norm": nn.BatchNorm2d(10),
}


def _net(function: Callable[..., Any], **parts: nn.Module) -> PairNet:
    return randomised(PairNet(function, **(PARTS | parts)))


def _folds(net: PairNet) -> tuple[list[str], Any]:
    """The operators that are left."""
    inputs = noise(2, 3, 6, 7), noise(2, 5, 6, 7, seed=1)
    done = fold(net, *inputs)
    assert_same(done.original(*inputs), done.module(*inputs))
    left = [str(n.target).split(".")[1] for n in nodes_of(done.module) if n.op == "call_function"]
    return left, done


def test_every_branch_takes_its_part() -> None:
    net = _net(lambda m, x, y: m.norm(torch.cat([m.a(x), m.b(y)], 1)).relu())
    assert _folds(net)[0] == ["cat", "relu"]


def test_through_a_reshape_above_the_norm_too() -> None:
    def forward(m: Any, x: Tensor, y: Tensor) -> Any:
        return m.norm(torch.cat([m.a(x), m.b(y)], 1).flatten(2)).relu()

    left, _ = _folds(_net(forward, norm=nn.BatchNorm1d(10)))
    assert left == ["cat", "flatten", "relu"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x, y: m.norm(torch.cat([m.a(x).relu(), m.b(y)], 1)).relu(),
        lambda m, x, y: (m.norm(both := torch.cat([m.a(x), m.b(y)], 1)).relu(), both.relu()),
        lambda m, x, y: (m.norm(torch.cat([(first := m.a(x)), m.b(y)], 1)).relu(), first.relu()),
        lambda m, x, y: m.norm(torch.cat([(first := m.a(x)), first, m.c(y)], 1)).relu(),
    ],
    ids=[
        "activation",
        "the concatenation has another reader",
        "a branch has another reader",
        "twice the same",
    ],
)
def test_where_a_branch_cannot_the_norm_stays(forward: Callable[..., Any]) -> None:
    left, _ = _folds(_net(forward, c=nn.Conv2d(5, 2, 1)))
    assert "batch_norm" in left


def test_a_concatenation_along_another_axis_is_none_of_channels() -> None:
    def forward(m: Any, x: Tensor, y: Tensor) -> Any:
        return m.norm(torch.cat([m.a(x), m.c(y)], 2)).relu()

    left, _ = _folds(_net(forward, c=nn.Conv2d(5, 4, 1), norm=nn.BatchNorm2d(4)))
    assert "batch_norm" in left
