"""Inputs that a network rejects: what it is seen to run on in their place is named, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import randomised


def classifier() -> nn.Module:
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return randomised(nn.Sequential(*layers, nn.Linear(8, 5))).eval()


class Last(nn.Module):
    """Takes channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("make", "inputs", "words"),
    [
        (classifier, torch.ones(3, 16, 12), "add the batch: --input 1x3x16x12"),
        (classifier, {"input": torch.ones(3, 16, 12)}, "add the batch: --input input:1x3x16x12"),
        (
            classifier,
            torch.ones(1, 16, 12, 3),
            "channels come before height and width: --input 1x3x16x12",
        ),
        (
            classifier,
            torch.ones(16, 12, 3),
            "add the batch, and channels before height and width: --input 1x3x16x12",
        ),
        (Last, torch.ones(1, 3, 16, 12), "channels come last here: --input 1x16x12x3"),
        (
            lambda: classifier().half(),
            torch.ones(1, 3, 16, 12),
            "its weights are float16, so give that type: --input 1x3x16x12:float16",
        ),
        (
            lambda: classifier().half(),
            torch.ones(3, 16, 12),
            "add the batch, in float16: --input 1x3x16x12:float16",
        ),
        (
            classifier,
            torch.ones(1, 3, 16, 12, dtype=torch.float16),
            "its weights are float32, so give that type: --input 1x3x16x12:float32",
        ),
    ],
)
def test_what_it_takes_is_named(make: Any, inputs: Any, words: str) -> None:
    with pytest.raises(rk.UnusableInput) as caught:
        rk.fold(make(), inputs)
    message = str(caught.value)
    assert message.startswith("the model rejects the example inputs (")
    assert message.endswith(f"; {words}")
    assert "\n" not in message


def test_where_nothing_runs_nothing_is_proposed() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not today")

    with pytest.raises(rk.UnusableInput, match=r"\(\[1, 5, 16, 12\] float32\): ValueError: not today$"):
        rk.fold(Never(), torch.ones(1, 5, 16, 12))
