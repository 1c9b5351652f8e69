"""Chains of linear layers and what stands around them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.nets import Net, fold_and_compare, noise, randomised


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
