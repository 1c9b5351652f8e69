"""Weights that are computed, also by way of tensors whose size only their values tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.nets import Net, fold_and_compare, nodes_of, noise


def _masked_sum(s: Any) -> Tensor:
    return s.weight * s.index[s.index < 4].sum()


def _scattered(s: Any) -> Tensor:
    kept = s.index[s.index < 4]
    return s.weight.flatten().index_put((kept,), s.other.flatten()[kept]).view(s.weight.shape)


def _counted(s: Any) -> Tensor:
    return s.weight * torch.nonzero(s.index).float().to(s.weight.dtype).mean()


def _selected(s: Any) -> Tensor:
    return s.weight + s.other.masked_select(s.other > 0).max()


WEIGHTS: dict[str, Callable[[Any], Tensor]] = {
    "a masked sum": _masked_sum,
    "scattered by a masked index": _scattered,
    "counted": _counted,
    "selected": _selected,
}


@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_size_that_only_values_tell_inside_a_computed_weight(name: str, dynamic: Any) -> None:
    net = Net(
        lambda s, x: F.conv2d(x, WEIGHTS[name](s), padding=1).relu() * 1.5,
        weight=noise(4, 3, 3, 3),
        other=noise(4, 3, 3, 3, seed=1),
        index=torch.tensor([0, 7, 3, 9, 2]),
    )
    done = fold_and_compare(net, noise(2, 3, 6, 5), dynamic=dynamic)
    assert [list(f.layers.values()) for f in done.folds] == [["Conv2d 3 -> 4, 3x3"]]
    left = {str(node.target) for node in nodes_of(done.module) if node.op == "call_function"}
    assert not any("assert" in name or "index" in name for name in left)
