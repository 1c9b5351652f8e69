"""Small networks with what plain ones have: strides, groups, residuals, skips, no batch norm."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from reparamkit.models import randomize
from tests.nets import noise


def step(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    """Two levels, without batch norm: (N, 3, H, W) -> (N, 2, H, W) for even H and W."""

    def __init__(self) -> None:
        super().__init__()
        self.down = step(3, 8)
        self.deep = nn.Sequential(step(8, 16), step(16, 16))
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = step(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(x)
        low = self.up(self.deep(torch.max_pool2d(high, 2)))
        out: Tensor = self.head(self.join(torch.cat([high, low], 1)))
        return out


class Plain(nn.Module):
    """Convolutions and batch norms with a residual, and a classifier: (N, 3, H, W) -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
        self.deep_norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = x + self.wide(x).relu()
        x = self.point(self.deep_norm(self.deep(x)).relu()).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def random_net(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights and statistics that matter, in evaluation mode."""
    return randomize(net, seed, sample=batch(seed=9)).eval()


def batch(*shape: int, seed: int = 0) -> Tensor:
    return noise(*(shape or (4, 3, 16, 12)), seed=seed, dtype=torch.float32)


def error64(original: nn.Module, other: nn.Module, x: Tensor) -> float:
    """How far two networks are apart in float64 and evaluation mode, as a share of the output's scale."""
    with torch.no_grad():
        expected, value = (copy.deepcopy(net).double().eval()(x.double()) for net in (original, other))
    assert expected.shape == value.shape
    return float((expected - value).abs().max() / expected.abs().max())
