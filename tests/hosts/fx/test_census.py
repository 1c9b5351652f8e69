"""The counts of operators before and after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import Net, noise, randomised


class _Called(nn.Module):
    """A layer, called with arguments that are no tensors, as transformers' networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, use_cache: bool = True, scale: Any = None) -> Tensor:
        y: Tensor = self.linear(x).relu()
        return y if use_cache else y.tanh()


@pytest.mark.parametrize(
    "kwargs", [{"use_cache": False}, {"use_cache": True}, {"scale": 3, "use_cache": False}]
)
def test_checks_of_settled_arguments_compute_nothing(kwargs: dict[str, Any]) -> None:
    found = rk.inspect(_Called().eval(), {"x": torch.randn(2, 4), **kwargs})
    assert found.after == found.before
    assert "mul" not in found.after
    assert "add" not in found.after


@pytest.mark.parametrize("shifted", [True, False])
def test_a_scale_per_channel_adds_only_where_it_shifts(shifted: bool) -> None:
    scale, shift = noise(4).float() + 2.0, noise(4, seed=1).float()
    net = Net(
        lambda s, x: ((x.relu() * s.scale) * 2.0 + (s.shift if shifted else 0.0)).tanh(),
        scale=scale,
        shift=shift,
    )
    after = rk.inspect(randomised(net), torch.randn(2, 3, 4), dynamic=False).after
    assert after.get("add", 0) == int(shifted)
    assert after["mul"] == 1
