"""Chains of linear layers and what stands around them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import Net, fold_and_compare, nodes_of, noise, randomised


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("axes", [(), (5,), (5, 4)], ids=["vector batch", "sequence", "channels last"])
def test_two_linear_layers_become_one(bias: bool, axes: tuple[int, ...]) -> None:
    net = randomised(nn.Sequential(nn.Linear(6, 12, bias=bias), nn.Linear(12, 3, bias=bias)))
    done = fold_and_compare(net, noise(2, *axes, 6))
    assert [m for m in done.module.modules() if isinstance(m, nn.Linear)] != []
    assert str(done.folds[0]).startswith("(the network): 2 linear -> Linear 6 -> 3")


@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_after_a_linear_layer_goes_into_it(bias: bool) -> None:
    net = randomised(nn.Sequential(nn.Linear(6, 12, bias=bias), nn.BatchNorm1d(12), nn.ReLU()))
    done = fold_and_compare(net, noise(4, 6))
    assert done.count(noise(4, 6)) == (0, 0, 0)


@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_before_a_linear_layer_goes_into_it(bias: bool) -> None:
    """LeViT's and many others' heads: nothing is padded, so the shift may pass."""
    net = randomised(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 12, bias=bias)))
    done = fold_and_compare(net, noise(4, 6))
    assert done.count(noise(4, 6)) == (0, 0, 0)


def test_linear_layers_on_the_last_axis_of_a_feature_map_chain() -> None:
    net = Net(
        lambda self, x: self.b(self.a(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
        a=nn.Linear(3, 8),
        b=nn.Linear(8, 3),
    )
    done = fold_and_compare(randomised(net), noise(2, 3, 5, 4))
    assert len(done.folds) == 1
    assert torch.nn.Linear in {type(m) for m in done.module.modules()}


@pytest.mark.parametrize("source", [nn.Linear(256, 32), nn.Sequential(nn.Linear(256, 32), nn.LayerNorm(32))])
def test_a_branch_of_many_steps_meets_the_other_at_their_nearest_common_source(source: nn.Module) -> None:
    """AdaLoRA, DoRA, VeRA: a low-rank branch of four and more operators beside the layer that it adapts."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.source(x)
        adapted: Tensor = s.base(y) + y @ s.down.t() @ s.up.t() * 0.25 / 3.0
        return adapted.tanh() + y.sigmoid() + s.other(y).exp()

    parts = {"base": nn.Linear(32, 32), "other": nn.Linear(32, 32), "source": copy.deepcopy(source)}
    low_rank = {"down": nn.Parameter(torch.ones(4, 32)), "up": nn.Parameter(torch.ones(32, 4))}
    done = fold_and_compare(randomised(Net(forward, **parts, **low_rank)), noise(2, 7, 256))
    (adapted,) = [fold for fold in done.folds if "add" in str(fold)]
    assert list(adapted.layers.values()) == ["Linear 32 -> 32"]
    layers = [m for m in done.module.modules() if isinstance(m, nn.Linear)]
    kept = sum("aten.linear" in str(node.target) for node in nodes_of(done.module))
    assert len(layers) + kept == 3
    assert not any("matmul" in str(node.target) for node in nodes_of(done.module))
