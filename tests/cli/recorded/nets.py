"""The networks of the recorded comparisons; what they compute must not change."""

from __future__ import annotations

import torch
from torch import nn


def base() -> nn.Module:
    """Two convolutions and a mean."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


def _with_last_layer(factor: float, channels: slice) -> nn.Module:
    network = base()
    with torch.no_grad():
        network.get_parameter("3.weight")[channels] *= factor
    return network


def wrong() -> nn.Module:
    """One channel is off by a hundredth."""
    return _with_last_layer(1.01, slice(1, 2))


def constant() -> nn.Module:
    """The output does not depend on the input."""
    return _with_last_layer(0.0, slice(None))


def half() -> nn.Module:
    """In bfloat16."""
    return base().bfloat16()
