"""The network that damaged files are compared with: small, so that what survives its damage is quick."""

from __future__ import annotations

import torch
from torch import nn


class Tiny(nn.Module):
    """A convolution, a branch beside it, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.point = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = (self.conv(image) + self.point(image)).relu()
        return self.head(y.mean((2, 3)))


def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


IMAGE = (1, 3, 8, 8)
