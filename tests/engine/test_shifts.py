"""A constant per channel on one side of a sum goes into the layer that reads the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import Folded, Net, fold, nodes_of, noise, randomised

BETA = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)


def _fold(function: Callable[..., Any], layer: nn.Module, *shape: int) -> tuple[list[str], Folded]:
    beta = BETA if isinstance(layer, nn.Linear) else BETA[:, None, None]
    net = randomised(Net(function, layer=layer, beta=beta))
    done = fold(net, noise(*shape))
    done.compare(noise(*shape, seed=1), bar=1e-12)
    left = [str(n.target).split(".")[1] for n in nodes_of(done.module) if n.op == "call_function"]
    return left, done


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda m, x: m.layer((x.sin() + m.beta) + x.cos()), ["sin", "cos", "add"]),
        (lambda m, x: m.layer(x.cos() - (m.beta + x.sin())), ["cos", "sin", "sub"]),
        (lambda m, x: m.layer(torch.add(x.cos(), x.sin() - m.beta, alpha=-2)), ["cos", "sin", "add"]),
        (lambda m, x: m.layer(torch.add(x.sin(), m.beta, alpha=3) + x.cos()), ["sin", "cos", "add"]),
    ],
    ids=["sum", "difference", "factor", "factor of the constant"],
)
def test_the_constant_leaves_the_sum(function: Callable[..., Any], left: list[str]) -> None:
    found, done = _fold(function, nn.Linear(4, 3), 2, 5, 4)
    assert found == left
    assert any(isinstance(m, nn.Linear) for m in done.module.modules())


def test_before_an_unpadded_convolution_too() -> None:
    def function(m: Any, x: Tensor) -> Any:
        return m.layer((x.sin() + m.beta) + x.cos())

    assert _fold(function, nn.Conv2d(4, 3, 3), 2, 4, 6, 7)[0] == ["sin", "cos", "add"]
    padded = _fold(function, nn.Conv2d(4, 3, 3, padding=1), 2, 4, 6, 7)[0]
    assert padded.count("add") == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (m.layer(s := (x.sin() + m.beta) + x.cos()), s.exp()),
        lambda m, x: m.layer((s := x.sin() + m.beta) + x.cos()) + s.sum(),
        lambda m, x: m.layer(((x.sin() + m.beta) + x.cos()).relu()),
    ],
    ids=["the sum has another reader", "the shifted side has another reader", "an activation between"],
)
def test_what_others_read_stays(function: Callable[..., Any]) -> None:
    found, _ = _fold(function, nn.Linear(4, 3), 2, 5, 4)
    assert found.count("add") >= 2


def test_a_constant_less_the_value_is_no_shift() -> None:
    found, _ = _fold(lambda m, x: m.layer((m.beta - x.sin()) + x.cos()), nn.Linear(4, 3), 2, 5, 4)
    assert len(found) >= 4
