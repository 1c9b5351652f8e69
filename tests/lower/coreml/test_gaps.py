"""What coremltools cannot take is brought into a form that it can, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.lower.coreml.identifiers import identifiers
from tests.lower.coreml.nets import folded, spec_of
from tests.nets import Net, PairNet
from tests.slow_share import few

TOKENS = torch.randn(2, 4, 9, 12, generator=torch.Generator().manual_seed(5))
MAP = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))


def _windows(self: Any, x: Tensor) -> Tensor:
    q, k, v = self.qkv(x).view(2, 4, 9, 3, 4, 3).permute(3, 0, 4, 1, 2, 5).unbind(0)
    return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).permute(0, 2, 3, 1, 4).reshape(2, 4, 9, 12)


def _six_axes(self: Any, x: Tensor) -> Tensor:
    windows = x.view(1, 3, 2, 4, 2, 4).transpose(3, 4)
    return self.linear(windows).view(1, 3, 4, 4, 4)


def _swapped(self: Any, x: Tensor) -> Tensor:
    windows = self.linear(x.view(1, 3, 2, 4, 2, 4).transpose(3, 4))
    return self.linear(windows.transpose(-1, -2)).transpose(-1, -2).reshape(12, 16)


def _filled(self: Any, x: Tensor) -> Tensor:
    table = torch.zeros(1, 2, 8)
    table[:, 1] = torch.arange(8)
    return x + table.sum(1)


def _bicubic(self: Any, x: Tensor) -> Tensor:
    return x + F.interpolate(self.embedding, size=(8, 8), mode="bicubic", align_corners=False)


NETWORKS: dict[str, tuple[Callable[[Any, Tensor], Any], dict[str, Any], Tensor]] = {
    "addcmul": (lambda self, x: torch.addcmul(x, x.relu(), x.sigmoid(), value=0.5), {}, MAP),
    "alias": (lambda self, x: torch.ops.aten.alias(x.relu()) * x.tanh(), {}, MAP),
    "queries, keys and values of six axes": (_windows, {"qkv": nn.Linear(12, 36)}, TOKENS),
    "two axes of six swapped": (_swapped, {"linear": nn.Linear(4, 4)}, MAP),
    "a linear layer of six axes": (_six_axes, {"linear": nn.Linear(4, 4)}, MAP),
    "a table filled step by step": (_filled, {}, MAP),
    "resized weights": (_bicubic, {"embedding": nn.Parameter(torch.randn(1, 3, 5, 5))}, MAP),
    "bicubic resizing": (
        lambda self, x: F.interpolate(x, size=(11, 6), mode="bicubic", align_corners=False),
        {},
        MAP,
    ),
    "a scale and a shift": (
        lambda self, x: x.tanh() * self.scale + self.shift,
        {"scale": torch.tensor([2.0, -3.0, 0.5]).view(1, 3, 1, 1), "shift": torch.ones(1, 3, 1, 1)},
        MAP,
    ),
    "an input as an output": (lambda self, x: (x, x.relu()), {}, MAP),
    "a truth as an output twice": (lambda self, x: (x > 0, x > 0), {}, MAP),
    "a constant as an output": (lambda self, x: (x.relu(), self.table), {"table": torch.arange(3.0)}, MAP),
}


@pytest.mark.parametrize(
    "name", few(NETWORKS, "addcmul", "a truth as an output twice", "a constant as an output")
)
def test_a_gap_of_coremltools(tmp_path: Path, name: str) -> None:
    function, parts, inputs = NETWORKS[name]
    network = folded(Net(function, **parts).eval(), inputs, dynamic=False)
    (saved,) = network.save(tmp_path / "net.mlpackage")
    assert saved.equivalence.passed


@pytest.mark.parametrize(
    ("names", "made"),
    [
        (["x"], ["x"]),
        (["map.0", "map_0"], ["map_0", "map_0_2"]),
        (["0", ""], ["value_0", "value"]),
        (["self", "class", "func", "lambda"], ["self_", "class_", "func_", "lambda_"]),
        (["häuser"], ["h_user"]),
        (["image", "image"], ["image_2", "image_3"]),
    ],
)
def test_identifiers(names: list[str], made: list[str]) -> None:
    assert identifiers(names, ["image"]) == made


class Choice(nn.Module):
    """Arguments and results that are no tensors."""

    def forward(self, x: Tensor, times: int, flag: bool = True) -> dict[str, Any]:
        return {"a": x.repeat(1, times, 1, 1) if flag else x, "nothing": None, "b": [x.tanh()]}


def test_arguments_and_results_that_are_no_tensors(tmp_path: Path) -> None:
    (saved,) = folded(Choice().eval(), (MAP, 2)).save(tmp_path / "net.mlpackage")
    assert saved.equivalence.passed
    described = spec_of(tmp_path / "net.mlpackage").description
    assert [each.name for each in described.input] == ["x"]
    assert [each.name for each in described.output] == ["a", "b_0"]


def test_truth_values_as_an_input_and_another_order_in_memory(tmp_path: Path) -> None:
    network = PairNet(lambda self, x, y: x.masked_fill(y, 0.0)).eval()
    last = MAP.to(memory_format=torch.channels_last)
    (saved,) = folded(network, (last, MAP > 0)).save(tmp_path / "net.mlpackage")
    assert saved.equivalence.passed


class Counting(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x + self.count


class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale


class Sized(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x.relu(), 3


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (Counting(), MAP, "the network changes 'count' while it runs"),
        (Scaled(), (MAP, torch.tensor(2.0)), "no inputs without axes, and 'scale' is one"),
        (Sized(), MAP, "the network returns 3, which is no tensor"),
    ],
)
def test_what_no_package_can_have(tmp_path: Path, model: nn.Module, inputs: Any, words: str) -> None:
    with pytest.raises(rk.UnusableInput, match=f"coremltools cannot convert this network: .*{words}"):
        folded(model.eval(), inputs).save(tmp_path / "net.mlpackage")
    assert list(tmp_path.iterdir()) == []
