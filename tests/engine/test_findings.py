"""What a fold says about what it left: in words, with the modules' paths, and nothing of what did fold."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.engine.findings import placed
from tests.nets import Net, fold, fold_and_compare, noise, randomised
from tests.slow_share import few


class _Separable(nn.Module):
    """A depthwise convolution and its norm, which folds; a dense layer behind it with a norm of its own."""

    def __init__(self, norms: bool) -> None:
        super().__init__()
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False))
        self.point = (
            nn.Sequential(nn.BatchNorm2d(16), nn.Conv2d(16, 32, 1)) if norms else nn.Conv2d(16, 32, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.depth(x)).relu()


@pytest.mark.parametrize("norms", [True, False])
def test_a_norm_that_folded_does_not_stay(norms: bool) -> None:
    done = fold(randomised(_Separable(norms)), noise(1, 16, 12, 12))
    told = "\n".join(map(str, done.refusals))
    assert "batch_norm" not in told
    assert "exact but dearer" in told
    assert "'depth.0'" in told
    assert not re.search(r"kappa|1\.0 times|conv2d_\d|'conv2d'", told)


@pytest.mark.parametrize("name", few(["fastvit_t8", "mobileone_s0"], "fastvit_t8"))
def test_no_norm_of_a_reference_model_is_told_to_stay(name: str) -> None:
    found = rk.inspect(rk.models.create(name).eval(), torch.randn(1, 3, 64, 64), dynamic=False)
    assert "batch_norm" not in found.after
    assert not [r for r in found.refusals if "norm" in r.operator]
    for refusal in found.refusals:
        assert not re.search(r"kappa|times the cost|'(conv2d|add|mul)_?\d*'", refusal.reason), refusal.reason


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("it comes from conv2d 'conv2d_7'", "it comes from conv2d 'stage.3'"),
        ("not exact with batch_norm 'norm_2'", "not exact with conv2d 'stage.reparam_conv'"),
        ("not exact with the sum 'norm_2'", "not exact with the sum 'stage.reparam_conv'"),
        ("two sources ('add_9', 'mul_1')", "two sources ('stage', 'mul_tensor')"),
        ("it pads by mode 'reflect'", "it pads by mode 'reflect'"),
        ("not exact with relu 'relu'", "not exact with relu 'relu'"),
    ],
)
def test_names_of_nodes_become_the_paths_of_their_modules(reason: str, said: str) -> None:
    standing = {
        "conv2d_7": ("conv2d", "conv2d", "stage.3"),
        "norm_2": ("batch_norm", "conv2d", "stage.reparam_conv"),
        "add_9": ("add", "add", "stage"),
        "mul_1": ("mul", "mul", "mul_tensor"),
        "relu": ("relu", "relu", "relu"),
    }
    assert placed(reason, standing) == said


class _Branches(nn.Module):
    """Parallel convolutions that become one, behind a shift that their padding keeps out."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.BatchNorm2d(4)
        self.branches = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shift(x.relu())
        total: Tensor = sum(branch(x) for branch in self.branches)
        return total.relu()


def test_branches_that_became_one_layer_are_told_of_as_that_layer() -> None:
    done = fold(randomised(_Branches()), noise(1, 4, 6, 6))
    told = [str(refusal) for refusal in done.refusals if "conv2d stays" in str(refusal)]
    assert len(told) == 1
    assert told[0].startswith("reparam_conv: conv2d stays: not exact with batch_norm 'shift'")


def test_a_source_behind_a_dropout_is_told_of_by_its_own_module() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.drop(s.act(x))
        total: Tensor = s.act(s.second(y)) + y
        return total

    drop, act, second = nn.Dropout(), nn.Tanh(), nn.Linear(4, 4)
    done = fold(randomised(Net(forward, drop=drop, act=act, second=second)), noise(2, 4))
    assert "different sources ('act'" in done.reasons()
    assert "drop" not in done.reasons()


def test_an_operator_whose_reader_is_there_for_a_fold_only() -> None:
    """The norm of a piece has become part of the convolution, and speaks for no operator of its own."""

    def forward(s: Any, x: Tensor) -> Any:
        pooled = F.avg_pool2d(x, 3, 2, divisor_override=5)
        piece, other = s.conv(pooled).split([1, 2], 1)
        return torch.cat([s.norm(piece), other], 1), x + x

    net = Net(forward, conv=nn.Conv2d(2, 3, 1, stride=2), norm=nn.BatchNorm2d(1))
    fold_and_compare(randomised(net), noise(2, 2, 4, 4))


class _PaddedAndScaled(nn.Module):
    """CoaT's attention: a sum whose padding, scale and addition are written anew, and no layer."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.pad(x * x.tanh(), (1, 0)) + 0.5 * y.relu()


def test_a_sum_that_is_written_anew_is_named_by_the_new_addition() -> None:
    done = fold(_PaddedAndScaled(), noise(2, 4, 5), noise(2, 4, 6))
    (refusal,) = [r for r in done.refusals if "different sources" in r.reason]
    module: Any = done.module
    standing = {node.name: str(node.target) for node in module.graph.nodes}
    assert standing[refusal.node] == "aten.add.Tensor"
    assert refusal.operator == "aten.add.default"
