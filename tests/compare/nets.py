"""Small networks that the tests of verification and lowering share, with a fold of one written by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm statistics of its own and put the module in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.copy_(uniform(part.running_mean.shape, -0.5, 0.5))
                part.running_var.copy_(uniform(part.running_var.shape, 0.5, 2.0))
                part.weight.copy_(uniform(part.weight.shape, 0.5, 1.5))
                part.bias.copy_(uniform(part.bias.shape, -0.5, 0.5))
    return module.eval()


class Block(nn.Module):
    """A RepVGG-like block: 3x3 conv + BN, 1x1 conv + BN and a BN alone, summed."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.wide_norm = nn.BatchNorm2d(channels)
        self.point = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        self.point_norm = nn.BatchNorm2d(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.wide_norm(self.wide(x))
        point = self.point_norm(self.point(x))
        return torch.relu(wide + point + self.norm(x))

    def folded(self) -> nn.Sequential:
        """The one conv that computes the same, worked out in float64."""
        channels, groups = self.wide.out_channels, self.wide.groups
        kernel = torch.zeros(self.wide.weight.shape, dtype=torch.float64)
        bias = torch.zeros(channels, dtype=torch.float64)
        identity = torch.zeros(self.point.weight.shape, dtype=torch.float64)
        for channel in range(channels):
            identity[channel, channel % (channels // groups)] = 1
        branches = [
            (self.wide.weight.double(), self.wide_norm),
            (self.point.weight.double(), self.point_norm),
            (identity, self.norm),
        ]
        for weight, norm in branches:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            scaled = weight * scale[:, None, None, None]
            if weight.shape[-1] == 1:
                kernel[:, :, 1:2, 1:2] += scaled
            else:
                kernel += scaled
            bias += norm.bias.double() - norm.running_mean.double() * scale
        dtype = self.wide.weight.dtype
        conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, dtype=dtype)
        with torch.no_grad():
            conv.weight.copy_(kernel)
            conv.get_parameter("bias").copy_(bias)
        return nn.Sequential(conv, nn.ReLU())


class Net(nn.Module):
    """Stem, two blocks (one depthwise), global pooling and a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.first: nn.Module = Block(16)
        self.second: nn.Module = Block(16, groups=16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(torch.relu(self.stem(x))))
        return self.head(y.mean((2, 3)))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    made = randomised(Net(), seed)
    assert isinstance(made, Net)
    return made


def folded(original: Net) -> Net:
    """A copy in which both blocks are one conv each."""
    result = copy.deepcopy(original)
    for name in ("first", "second"):
        block = getattr(original, name)
        setattr(result, name, block.folded())
    return result.eval()


class Lambda(nn.Module):
    """A module around a function, with one conv to call its own."""

    def __init__(self, function: Callable[..., object], channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.function = function
        self.eval()

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.function(self, *args, **kwargs)
