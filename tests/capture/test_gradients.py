"""Where gradients stop in a network, they stop in its fold; and what is written can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import Net, assert_same, nodes_of, noise, randomised

X = noise(2, 3, 6, 5, dtype=torch.float32)


def _net(forward: Callable[..., Any]) -> nn.Module:
    parts: dict[str, nn.Module | Tensor] = {
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "gamma": nn.Parameter(torch.ones(4, 1, 1)),
        "mean": torch.zeros(4, 1, 1),
    }
    return randomised(Net(forward, **parts))


def _gradients(module: nn.Module) -> list[Tensor | None]:
    """Of the input and, where no fold has taken it in, of the parameter."""
    x = X.clone().requires_grad_()
    module.zero_grad()
    module(x * 1).square().sum().backward()
    gamma = dict(module.named_parameters()).get("gamma")
    return [x.grad, *([gamma.grad] if gamma is not None else [])]


def _assert_same_gradients(one: nn.Module, other: nn.Module) -> None:
    for expected, found in zip(_gradients(one), _gradients(other), strict=False):
        assert (expected is None) == (found is None)
        if expected is not None and found is not None:
            assert_same(expected, found, 1e-4)


def _gate(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    with torch.no_grad():
        gate = (y * s.gamma).sigmoid()
    return y * gate * s.gamma


def _statistics(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    with torch.no_grad():
        s.mean.mul_(0.9).add_(y.mean((0, 2, 3)).view(4, 1, 1), alpha=0.1)
    return y * s.gamma - s.mean


def _region_in_a_region(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    with torch.no_grad():
        a = y * 2
        with torch.enable_grad():
            b = (y * s.gamma).tanh()
        c = a + y
    return y * s.gamma + b * c


def _region_around_a_fold(s: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = s.norm(s.conv(x))
    return y * s.gamma


def _several_results(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    with torch.no_grad():
        low, high = y.aminmax(dim=1, keepdim=True)
        z = s.norm(y)
    return (y - low) / (high - low + 1) * s.gamma + z


REGIONS = [_gate, _statistics, _region_in_a_region, _region_around_a_fold, _several_results]


@pytest.mark.parametrize("forward", REGIONS, ids=lambda f: f.__name__.strip("_"))
def test_regions_without_gradients_in_an_exported_program(forward: Callable[..., Any]) -> None:
    """torch.export keeps such a region apart where gradients were on around it."""
    model = _net(forward)
    program = torch.export.export(model, (X,), strict=False)
    folded = rk.fold(program, X)
    _assert_same_gradients(model, folded.module)


def _detached_between(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.conv(x).detach()) * s.gamma + s.conv(x)


def _detached_twice(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    return y * y.detach() * s.gamma.detach() + s.gamma


def _straight_through(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x)) * s.gamma
    return y + (y.round() - y).detach()


def _detached_buffer(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.conv(x)) * (s.mean.detach() + 1).detach() * s.gamma


def _written_then_detached(s: Any, x: Tensor) -> Tensor:
    z = torch.zeros(2, 4, 6, 5)
    z[:, :2] = s.conv(x)[:, :2]
    return s.gamma * z.detach() + s.norm(s.conv(x))


DETACHED = [_detached_between, _detached_twice, _straight_through, _detached_buffer, _written_then_detached]


@pytest.mark.parametrize("forward", DETACHED, ids=lambda f: f.__name__.strip("_"))
def test_detach_stops_gradients_in_the_fold(forward: Callable[..., Any]) -> None:
    model = _net(forward)
    _assert_same_gradients(model, rk.fold(model, X).module)


def test_a_detached_constant_keeps_nothing_from_folding() -> None:
    """Every constant of a network is captured with a detach."""
    model = _net(lambda s, x: s.norm(s.conv(x)) * torch.tensor([2.0]).detach())
    folded = rk.fold(model, X)
    assert folded.after == {"conv2d": 1}


def _canvas(s: Any, x: Tensor) -> Tensor:
    z = torch.zeros(x.shape[0], 4, x.shape[2] + 2, x.shape[3] + 2)
    z[:, :, 1:-1, 1:-1] = s.conv(x)
    return z * s.gamma


def _copies_another_type(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    y[:, 0] = (x[:, 1] * s.gamma[1]).double()
    return y


def _copies_what_is_broadcast(s: Any, x: Tensor) -> Tensor:
    z = x.new_empty(2, 4, 6, 5)
    z.copy_(s.gamma)
    z[:, 1:3] = s.conv(x)[:, :1]
    return z * s.gamma


def _copies_the_input(s: Any, x: Tensor) -> Tensor:
    z = torch.empty_like(x)
    z.copy_(x)
    z.mul_(s.gamma[:3])
    return z


COPIES = [_canvas, _copies_another_type, _copies_what_is_broadcast, _copies_the_input]


@pytest.mark.parametrize("forward", COPIES, ids=lambda f: f.__name__.strip("_"))
def test_what_is_copied_into_can_be_trained(forward: Callable[..., Any]) -> None:
    model = _net(forward)
    module = rk.fold(model, X).module
    assert "aten.copy.default" not in {str(node.target) for node in nodes_of(module)}
    _assert_same_gradients(model, module)


def test_a_copy_that_is_returned_shares_no_memory() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        z = torch.empty_like(x)
        z[:, :1].zero_()
        z.copy_(x)
        return z

    module = rk.fold(_net(forward), X).module
    x = X.clone()
    module(x).zero_()
    assert torch.equal(x, X)


@pytest.mark.parametrize("steps", [3])
def test_several_steps_with_a_buffer_that_is_written(steps: int) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x)) * s.gamma
        with torch.no_grad():
            s.mean.copy_(y.mean((0, 2, 3)).view(4, 1, 1))
        return y

    module = rk.fold(_net(forward), X).module
    for _ in range(steps):
        module(X).sum().backward()
    assert not module.get_buffer("mean").requires_grad
