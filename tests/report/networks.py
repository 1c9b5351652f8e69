"""Folded networks that the tests of the reports share."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.report.findings import Report
from reparamkit.result import Folded, report_of
from tests.nets import randomised


class Branches(nn.Module):
    """A convolution of 9 and one of 3, each with a norm, and the input itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = nn.Sequential(
            nn.Conv2d(channels, channels, 9, padding=4, groups=channels, bias=False), nn.BatchNorm2d(channels)
        )
        self.small = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.BatchNorm2d(channels)
        )
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.large(x) + self.small(x) + x)
        return y


class Net(nn.Module):
    """Four equal blocks, a gate, and a norm before a padded convolution, which has to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(*(Branches(8) for _ in range(4)))
        self.gate = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = x * torch.sigmoid(self.gate(x))
        y: Tensor = self.last(self.norm(x))
        return y


@cache
def folded() -> Folded:
    """The network, folded at fixed sizes."""
    torch.manual_seed(0)
    return rk.fold(randomised(Net()), torch.randn(1, 3, 32, 32), dynamic=False)


def report() -> Report:
    """Its report."""
    return report_of(folded(), "net", command="reparamkit fold net", versions={"reparamkit": "1"})
