"""What comes out of capture for the models, inputs and sizes that users have."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.errors import UnusableInput
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, assert_same, fold, noise, randomised


def _conv() -> nn.Conv2d:
    return randomised(nn.Conv2d(3, 4, 3, padding=1))


@pytest.mark.parametrize("dynamic", [False, "auto", "batch"])
def test_an_example_of_batch_one_is_answered_as_the_model_answers_it(dynamic: Any) -> None:
    """Capturing with a batch of two in its place must not take the branch that only larger batches take."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if x.shape[0] == 1 else -y

    done = fold(Net(forward, conv=_conv()), noise(1, 3, 6, 5), dynamic=dynamic)
    done.compare(noise(1, 3, 6, 5, seed=1))


@pytest.mark.parametrize("dynamic", [False, "auto", "batch"])
def test_an_example_of_batch_one_may_lose_its_batch_axis(dynamic: Any) -> None:
    net = Net(lambda self, x: self.conv(x).mean((2, 3)).squeeze(), conv=_conv())
    done = fold(net, noise(1, 3, 6, 5), dynamic=dynamic)
    done.compare(noise(1, 3, 6, 5, seed=1))


@pytest.mark.parametrize("dynamic", [False, "auto", "batch"])
def test_a_batch_of_one_that_broadcasts(dynamic: Any) -> None:
    net = Net(lambda self, x: self.conv(x) * self.two, conv=_conv(), two=noise(2, 1, 1, 1))
    done = fold(net, noise(1, 3, 6, 5), dynamic=dynamic)
    done.compare(noise(1, 3, 6, 5, seed=1))


def test_torch_keeps_its_warnings_to_itself_when_a_buffer_is_written() -> None:
    """Functionalising by torch's own decompositions must be as quiet as the export is."""

    def forward(self: Any, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x * self.count

    done = fold(Net(forward, count=noise(1)), noise(2, 3))
    done.compare(noise(2, 3))


@pytest.mark.parametrize("training", [False, True])
def test_a_weight_norm_by_hooks_is_captured_or_refused_in_words(training: bool) -> None:
    """`torch.nn.utils.weight_norm` leaves a computed tensor in the module, which copy.deepcopy rejects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    net = nn.Sequential(conv, nn.ReLU()).train(training)
    x = noise(2, 3, 6, 5, dtype=torch.float32)
    with torch.no_grad():
        expected = net(x)
    try:
        program = capture(net, (x,), dynamic=False)
    except UnusableInput:
        return
    assert_same(expected, fold_program(program).module(x).detach(), 1e-6)
