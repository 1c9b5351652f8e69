"""Calls of one operator with the same arguments are one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.equal_calls import share_equal_calls
from reparamkit.hosts.fx.fold import fold_program
from tests.engine.laws.left import left
from tests.nets import Net, noise, randomised

IMAGE = noise(2, 4, 6, 7)


def _convs(**more: nn.Module) -> dict[str, nn.Module]:
    return {"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 1), **more}


EQUAL: dict[str, Callable[[Any, Tensor], Any]] = {
    "an activation": lambda s, x: (s.a(x.relu()) + s.b(x.relu())).exp(),
    "a chain": lambda s, x: (s.a(x.relu().sigmoid()) + s.b(x.relu().sigmoid())).exp(),
    "views by sizes": lambda s, x: (
        s.l(x.relu().view(x.shape[0], -1)) + s.m(x.relu().view(x.shape[0], -1))
    ).exp(),
    "a piece": lambda s, x: (
        s.a(x.sigmoid().tile(1, 2, 1, 1).chunk(2, 1)[1]) + s.b(x.sigmoid().tile(1, 2, 1, 1).chunk(2, 1)[1])
    ).exp(),
}


@pytest.mark.parametrize("name", EQUAL)
def test_branches_that_begin_alike_are_one_layer(name: str) -> None:
    kept = left(EQUAL[name], IMAGE, **_convs(l=nn.Linear(168, 5), m=nn.Linear(168, 5)))
    assert kept.get("conv2d", 0) + kept.get("linear", 0) == 1
    assert all(count == 1 for count in kept.values())


def _calls(function: Callable[..., Any]) -> list[str]:
    program = capture(Net(function).eval(), (IMAGE,), dynamic=False)
    share_equal_calls(program.graph)
    return [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


def test_a_module_that_is_called_twice_on_one_value_is_folded_once() -> None:
    """A detector's lateral layer, which two levels of its pyramid ask for."""

    def forward(s: Any, x: Tensor) -> Tensor:
        x = x.relu()
        return s.b(F.silu(s.norm(s.a(x)))) + F.silu(s.norm(s.a(x)))

    kept = left(forward, IMAGE, **_convs(norm=nn.BatchNorm2d(4)))
    assert kept["conv2d"] == 2
    assert kept["silu"] == 1
    assert "batch_norm" not in kept


@pytest.mark.parametrize("training", [False, True])
def test_norms_are_one_value_unless_they_keep_statistics(training: bool) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        mean, variance = s.norm.running_mean, s.norm.running_var
        return F.batch_norm(x, mean, variance, training=training) - F.batch_norm(
            x, mean, variance, training=training
        )

    program = capture(Net(forward, norm=nn.BatchNorm2d(4)).eval(), (IMAGE.float(),), dynamic=False)
    before = sum("batch_norm" in str(n.target) for n in program.graph.nodes)
    share_equal_calls(program.graph)
    after = sum("batch_norm" in str(n.target) for n in program.graph.nodes)
    assert after == (before if training else 1)


DIFFERENT: dict[str, Callable[[Any, Tensor], Any]] = {
    "random": lambda s, x: torch.rand_like(x) - torch.rand_like(x),
    "dropout": lambda s, x: F.dropout(x, 0.5, True) - F.dropout(x, 0.5, True),
    "rrelu": lambda s, x: F.rrelu(x, training=True) - F.rrelu(x, training=True),
    "other numbers": lambda s, x: x.clamp(0, 1) - x.clamp(0, 2),
    "a whole number and another": lambda s, x: torch.pow(x, 2) - torch.pow(x, 2.0),
    "the sign of zero": lambda s, x: torch.clamp(x, 0.0) - torch.clamp(x, -0.0),
    "by name": lambda s, x: F.gelu(x, approximate="none") - F.gelu(x, approximate="tanh"),
    "both handed out": lambda s, x: (x.exp(), x.exp()),
    "views handed out": lambda s, x: (x.exp(), x.exp()[0]),
    "statistics": lambda s, x: (
        F.instance_norm(x, torch.zeros(4).double(), torch.ones(4).double())
        - F.instance_norm(x, torch.zeros(4).double(), torch.ones(4).double())
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_they_stay_two(name: str) -> None:
    calls = [call for call in _calls(DIFFERENT[name]) if "sub" not in call and "zeros" not in call]
    assert max(calls.count(call) for call in calls) == 2


def test_nothing_is_shared_in_a_network_that_writes() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        before = s.seen.sin()
        s.seen.add_(1.0)
        return before + s.seen.sin() * x.mean()

    net = Net(forward, seen=torch.ones(3).double()).eval()
    x = noise(2, 3)
    module = fold_program(capture(net, (x,), dynamic=False)).module
    for _ in range(2):
        torch.testing.assert_close(module(x), net(x))


def test_statistics_are_updated_as_often_as_before() -> None:
    norm = nn.BatchNorm2d(4).double()
    net = randomised(Net(lambda s, x: s.norm(x) + s.norm(x), norm=norm).double())
    x = noise(2, 4, 3, 3)
    module = fold_program(capture(net.eval(), (x,), dynamic=False)).module
    torch.testing.assert_close(module(x), net(x))
