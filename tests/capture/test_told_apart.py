"""Inputs that are one tensor in the example are inputs of their own in the folded network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import noise, randomised


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.norm(self.a(x) + self.b(y))
        return out


class Nested(Two):
    def forward(self, pair: list[Tensor], more: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(pair[0] + more["z"], pair[1])


class WithPosition(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.position = nn.Linear(6, 4), nn.Parameter(torch.randn(1, 6))
        self.mean = nn.Buffer(torch.randn(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x + self.position - self.mean)
        return out


X, Y = noise(2, 3, 8, 8).float(), noise(2, 3, 8, 8, seed=3).float()


def _fold(model: nn.Module, example: Any, dynamic: Any) -> nn.Module:
    return rk.fold(model, example, dynamic=dynamic, verify=False).module


def _assert_same(expected: Tensor, found: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, "batch", "auto"])
@pytest.mark.parametrize("again", [lambda x: x, lambda x: x.detach(), lambda x: x.view(2, 3, 8, 8)])
def test_one_tensor_for_two_inputs(again: Any, dynamic: Any) -> None:
    net = randomised(Two()).float().eval()
    _assert_same(net(X, Y), _fold(net, (X, again(X)), dynamic)(X, Y))


def test_verified_and_in_a_file(tmp_path: Path) -> None:
    net = randomised(Two()).float().eval()
    folded = rk.fold(net, (X, X))
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    assert rk.check(net, tmp_path / "net.onnx", (X, Y)).passed
    _assert_same(net(X, Y), torch.export.load(tmp_path / "net.pt2").module()(X, Y))


def test_inside_structures() -> None:
    net = randomised(Nested()).float().eval()
    module = _fold(net, ([X, X], {"z": X}), False)
    _assert_same(net([X, Y], {"z": Y * 2}), module([X, Y], {"z": Y * 2}))


@pytest.mark.parametrize("name", ["position", "mean"])
def test_a_weight_of_the_network_as_its_input(name: str) -> None:
    net = WithPosition().eval()
    other = noise(1, 6).float()
    _assert_same(net(other), _fold(net, getattr(net, name), False)(other))


class Branching(nn.Module):
    """Captured in parts; one of them is called with one tensor twice, and with two."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.last = Two(), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 100:
            return x
        return self.last(self.two(x, x)) + self.last(self.two(x, x * 2))


def test_a_part_that_is_called_with_one_tensor_twice() -> None:
    net = randomised(Branching()).float().eval()
    folded = rk.fold(net, X)
    assert any(part.folded for part in folded.parts)
    _assert_same(net(Y), folded.module(Y))
