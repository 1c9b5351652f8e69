"""Networks that are another one at each call are named as such, and never called different."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

import reparamkit as rk
from reparamkit.compare.compare import compare
from reparamkit.compare.inputs.input_spec import parse
from reparamkit.compare.inputs.probes import probes
from reparamkit.compare.randomness import drawn_outputs
from reparamkit.runners.torch import TorchRunner
from tests.compare.files import write_graph
from tests.compare.nets import Lambda

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
OWN = torch.Generator().manual_seed(3)

RANDOM = {
    "dropout that is on": lambda self, x: F.dropout(self.conv(x), 0.5, training=True),
    "noise": lambda self, x: self.conv(x) + 0.3 * torch.randn_like(x[:, :1]),
    "little noise": lambda self, x: self.conv(x) + 1e-5 * torch.randn_like(x[:, :1]),
    "a generator of its own": lambda self, x: self.conv(x) + torch.randn(1, generator=OWN),
    "Python's": lambda self, x: self.conv(x) * random.random(),
    "NumPy's": lambda self, x: self.conv(x) * float(np.random.rand()),
    "one of two": lambda self, x: (self.conv(x), self.conv(x) + torch.rand(1)),
    "integers": lambda self, x: torch.bernoulli(self.conv(x).sigmoid()).long(),
    "sizes": lambda self, x: self.conv(x)[:, :, : int(torch.randint(1, 8, ()))],
}


@pytest.mark.parametrize("function", RANDOM.values(), ids=RANDOM.keys())
def test_a_random_reference_cannot_be_told(function: Callable[..., Any]) -> None:
    network = Lambda(function)
    found = compare(network, network, inputs=IMAGE).comparison
    assert found.status == "cannot tell"
    assert "the network is random: it gives other outputs" in found.reason
    assert "Turn off what draws numbers in it" in found.reason
    with pytest.raises(rk.UnusableInput, match="the network is random"):
        rk.check(network, network, IMAGE)


@pytest.mark.parametrize("kind", ["dropout that is on", "noise", "one of two"])
def test_a_random_network_can_be_folded_and_not_be_told(kind: str, tmp_path: Path) -> None:
    result = rk.fold(Lambda(RANDOM[kind]), IMAGE, dynamic=False)
    assert result.equivalence is not None
    assert not result.equivalence.differs
    assert "the network is random" in result.equivalence.untold
    with pytest.raises(rk.UnusableInput, match="the network is random"):
        result.save(tmp_path / "n.pt2")


def test_a_random_candidate_is_different_and_named() -> None:
    network = Lambda(RANDOM["dropout that is on"])
    found = compare(Lambda(lambda self, x: self.conv(x)), network, inputs=IMAGE).comparison
    assert found.status == "different"
    assert found.reason.startswith("the candidate is random: it gives other outputs ('output')")


def test_an_onnx_file_with_dropout_in_training_mode(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "d.onnx",
        [helper.make_node("Dropout", ["x", "ratio", "on"], ["y"])],
        [("x", TensorProto.FLOAT, [4, 16])],
        [("y", TensorProto.FLOAT, [4, 16])],
        {"ratio": np.float32(0.5), "on": np.bool_(True)},
    )
    found = compare(path, path).comparison
    assert found.status == "cannot tell"
    assert "the network is random" in found.reason


def test_what_draws_and_does_not_use_it_is_not_random() -> None:
    def idle(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        torch.randn(3)
        return F.dropout(self.conv(x), 0.0, training=True)

    def seeded(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(5))
        return self.conv(x) + noise

    for function in (idle, seeded):
        assert compare(Lambda(function), Lambda(function), inputs=IMAGE).comparison.passed


def test_rounding_that_changes_from_run_to_run_is_not_random() -> None:
    """As threads that sum in another order do: no seed makes the runs the same, and they are nearly so."""
    calls = iter(range(1000))

    def forward(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * (1 + 1e-6 * (next(calls) % 2))

    runner = TorchRunner(Lambda(forward))
    assert drawn_outputs(runner, probes((IMAGE,), {}, seed=0)[0]) == []


def test_the_random_state_is_put_back() -> None:
    runner = TorchRunner(Lambda(lambda self, x: self.conv(x)))
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    drawn_outputs(runner, probes((IMAGE,), {}, seed=0)[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # type: ignore[index]


def build() -> nn.Module:
    """New weights at each call."""
    return nn.Conv2d(3, 4, 3)


class Built(nn.Module):
    """The same, as a class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def steady() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3)


def wrong() -> nn.Conv2d:
    made = steady()
    made.weight.data[0] *= 1.1
    return made


HERE = "tests.compare.test_randomness"


@pytest.mark.parametrize(
    ("reference", "candidate", "named"),
    [
        ("build", "build", "build"),
        ("Built", "Built", "Built"),
        ("steady", "build", "build"),
        ("build", "steady", "build"),
    ],
)
def test_a_source_that_draws_new_weights(reference: str, candidate: str, named: str) -> None:
    found = compare(f"{HERE}:{reference}", f"{HERE}:{candidate}", described=parse(["1x3x8x8"])).comparison
    assert found.status == "cannot tell"
    assert f"{HERE}:{named} draws new weights at each call" in found.reason
    assert "seed it" in found.reason


def test_a_source_with_weights_of_its_own() -> None:
    described = parse(["1x3x8x8"])
    assert compare(f"{HERE}:steady", f"{HERE}:steady", described=described).comparison.passed
    assert compare(f"{HERE}:steady", f"{HERE}:wrong", described=described).comparison.status == "different"
