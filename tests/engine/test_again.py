"""Folding what was folded finds nothing more to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import Net, fold, noise, randomised

FORWARDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "convolution and norm": lambda self, x: self.norm(self.conv(x)).relu(),
    "uneven padding": lambda self, x: self.conv(F.pad(x.relu(), (1, 0, 2, 0))),
    "scale on the last axis": lambda self, x: (x.relu() * self.scale + self.shift).sigmoid(),
    "one factor and one shift": lambda self, x: (x.relu() * 2 + 1).sigmoid(),
    "a norm alone": lambda self, x: F.relu(self.first(x.relu())),
    "a multiple of a residual": lambda self, x: x.relu() * 0.5 + self.conv(x)[:, :3] * 2,
}


@pytest.mark.parametrize("name", FORWARDS)
def test_folding_again_changes_nothing(name: str) -> None:
    net = Net(
        FORWARDS[name],
        conv=nn.Conv2d(3, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        first=nn.BatchNorm2d(3),
        scale=nn.Parameter(noise(6)),
        shift=nn.Parameter(noise(6, seed=1)),
    )
    x = noise(2, 3, 7, 6)
    once = fold(randomised(net), x)
    once.compare(x)
    twice = fold(once.module, x)
    twice.compare(x)
    assert [str(f) for f in twice.folds] == []
