"""What other tools get silently wrong, and this one right.

Where the other tool comes with torch it is run too, so that each of these is seen to be a trap.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import reparamkit as rk
from tests.nets import Net, assert_same, fold, noise, randomised


def _difference(model: nn.Module, other: Callable[[Tensor], Any], x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - other(x)).abs().max())


def _by_torch_fx(model: nn.Module) -> Callable[[Tensor], Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.fx.experimental.optimization import fuse

        fused: Callable[[Tensor], Any] = fuse(copy.deepcopy(model))
    return fused


class OneConvTwoNorms(nn.Module):
    """A convolution that is used twice, with a batch norm of its own each time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.first(self.conv(x)) + self.second(self.conv(x.flip(3)))
        return total


def test_one_convolution_used_twice_with_two_norms() -> None:
    model = randomised(OneConvTwoNorms()).double()
    x = noise(2, 4, 9, 8)
    assert _difference(model, _by_torch_fx(model), x) > 0.1
    done = fold(model, x)
    assert done.count(x)[:2] == (2, 0)
    done.compare(x, bar=1e-12)


@pytest.mark.parametrize("gated", [False, True])
def test_a_convolution_that_something_else_reads_too(gated: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        convolved = m.conv(x)
        total: Tensor = m.norm(convolved) * convolved.sigmoid() if gated else m.norm(convolved) + convolved
        return total

    model = randomised(Net(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    fold(model, noise(2, 3, 8, 9)).compare(noise(2, 3, 8, 9, seed=1), bar=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["norm", "product"])
def test_a_transposed_convolution_with_as_many_inputs_as_outputs(kind: str, groups: int) -> None:
    """Its weights are (inputs, outputs / groups, …): to scale the first axis is wrong, and nothing warns."""

    def forward(m: Any, x: Tensor) -> Any:
        return m.norm(m.up(x)) if kind == "norm" else m.up(x) * m.scale

    up, norm = nn.ConvTranspose2d(4, 4, 3, stride=2, groups=groups), nn.BatchNorm2d(4)
    scale = nn.Parameter(torch.tensor([0.5, -1.5, 2.0, 0.1])[:, None, None])
    model = randomised(Net(forward, up=up, norm=norm, scale=scale)).double()
    x = noise(2, 4, 5, 6)
    if kind == "norm":
        untold = fuse_conv_bn_eval(up, norm)
        assert _difference(model, untold, x) > 0.1
    fold(model, x).compare(noise(2, 4, 5, 6, seed=1), bar=1e-12)


def test_a_norm_before_a_padded_convolution_stays() -> None:
    model = randomised(
        Net(lambda m, x: m.conv(m.norm(x)), norm=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3, padding=1))
    )
    done = fold(model, noise(2, 3, 8, 9))
    assert done.count(noise(2, 3, 8, 9))[:2] == (1, 1)
    done.compare(noise(2, 3, 8, 9, seed=1), bar=1e-12)
    assert "before zero padding: the padded border stays zero" in done.reasons()


def test_a_norm_that_nothing_takes_in_is_not_dropped() -> None:
    """The `replace_batchnorm` of several repositories puts an identity in its place."""
    model = randomised(Net(lambda m, x: m.norm(x.relu()).relu(), norm=nn.BatchNorm2d(3)))
    done = fold(model, noise(2, 3, 8, 9))
    done.compare(noise(2, 3, 8, 9, seed=1), bar=1e-12)
    with torch.no_grad():
        dropped = noise(2, 3, 8, 9).relu()
        assert (done.module(noise(2, 3, 8, 9)) - dropped).abs().max() > 0.1


class ThreeBranches(nn.Module):
    """A RepVGG block without biases; other tools made it an invalid ONNX file, or kept its norms."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(4, 4, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        wide, narrow, skip = self.norms
        return torch.relu(wide(self.wide(x)) + narrow(self.narrow(x)) + skip(x))


def test_the_onnx_file_of_a_three_branch_block_is_valid_and_holds_one_convolution(tmp_path: Path) -> None:
    model = randomised(ThreeBranches()).float()
    path = tmp_path / "block.onnx"
    rk.fold(model, torch.randn(1, 4, 8, 8)).save(path)
    stored = onnx.load(path)
    onnx.checker.check_model(stored, full_check=True)
    assert Counter(node.op_type for node in stored.graph.node) == {"Conv": 1, "Relu": 1}
    names = [name for node in stored.graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_inputs_from_0_to_1_miss_a_broken_weight_that_the_check_finds() -> None:
    """With positive inputs a ReLU can hide a whole channel; the difference is exactly 0 then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        model.get_parameter("0.weight")[1] = -model.get_parameter("0.weight")[1].abs()
        model.get_parameter("0.bias")[1] = -0.01
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_parameter("0.weight")[1, 0] *= 1.5
    positive = torch.rand(1, 3, 16, 16)
    assert _difference(model, broken, positive) == 0.0
    assert not rk.check(model, broken, positive).passed


def test_folding_what_others_fold_in_place_leaves_the_model_alone() -> None:
    model = randomised(OneConvTwoNorms()).double()
    before = copy.deepcopy(model)
    fold(model, noise(2, 4, 9, 8))
    assert_same(before(noise(2, 4, 9, 8)), model(noise(2, 4, 9, 8)), 0.0)
