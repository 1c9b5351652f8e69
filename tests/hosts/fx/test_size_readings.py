"""Sizes that are read off values which a fold takes away."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.size_readings import read_sizes_off_what_stays
from tests.nets import Net, assert_same, noise, randomised

Forward = Callable[[Any, Tensor], Any]


def _padded(x: Tensor, value: float = 0.0) -> Tensor:
    """As for TensorFlow's padding="same" at stride 2: how much depends on the size, rounded up."""
    first, second = (max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in x.shape[2:])
    return F.pad(x, (second // 2, second - second // 2, first // 2, first - first // 2), value=value)


def pooled(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(_padded(s.stem(x).relu())))
    return F.max_pool2d(_padded(y, -9.0), 3, 2)


def activated(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(_padded(s.stem(x).relu()))).sigmoid()
    return s.last(_padded(y))


def summed(s: Any, x: Tensor) -> Tensor:
    z = _padded(s.stem(x).relu())
    y = s.norm(s.conv(z)) + s.other(z)
    return F.max_pool2d(_padded(y, -9.0), 3, 2)


def _layers() -> dict[str, nn.Module]:
    return {
        "stem": nn.Conv2d(3, 4, 3, stride=2),
        "conv": nn.Conv2d(4, 4, 3, stride=2, bias=False),
        "norm": nn.BatchNorm2d(4),
        "other": nn.Conv2d(4, 4, 3, stride=2),
        "last": nn.Conv2d(4, 4, 3, stride=2),
    }


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (pooled, {"conv2d": 2, "relu": 1, "pad": 2, "max_pool2d": 1}),
        (activated, {"conv2d": 3, "relu": 1, "pad": 2, "sigmoid": 1}),
        (summed, {"conv2d": 2, "relu": 1, "pad": 2, "max_pool2d": 1}),
    ],
)
def test_a_size_is_read_off_what_stays(forward: Forward, expected: dict[str, int]) -> None:
    net = randomised(Net(forward, **_layers())).double()
    outcome = fold_program(capture(net, (noise(2, 3, 27, 31),), dynamic="auto"))
    assert outcome.undone == ()
    assert census(outcome.module.graph, dict(outcome.module.named_modules())) == expected
    for shape in [(2, 3, 27, 31), (1, 3, 28, 33), (3, 3, 41, 30)]:
        assert_same(net(noise(*shape)), outcome.module(noise(*shape)))


def test_a_value_that_stays_keeps_its_readings() -> None:
    net = randomised(Net(activated, **_layers())).double()
    program = capture(net, (noise(2, 3, 27, 31),), dynamic="auto")
    assert read_sizes_off_what_stays(FxHost(program))
    program.graph.lint()
    before = [(node, node.args) for node in program.graph.nodes]
    assert not read_sizes_off_what_stays(FxHost(program))
    assert [(node, node.args) for node in program.graph.nodes] == before
