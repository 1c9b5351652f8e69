"""A small detector: training-time blocks, heads that only training needs, a deployed form.

python detector.py best.pth     writes a checkpoint as a training run leaves it
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn


class RepConv(nn.Module):
    """3x3, 1x1 and identity, each with its norm; one convolution once it is deployed."""

    def __init__(self, channels: int, *, deploy: bool = False) -> None:
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.reparam = nn.Conv2d(channels, channels, 3, padding=1)
        else:
            self.dense = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
            )
            self.point = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
            self.identity = nn.BatchNorm2d(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        if self.deploy:
            return self.act(self.reparam(x))
        return self.act(self.dense(x) + self.point(x) + self.identity(x))


class Down(nn.Module):
    """Half the size, with a norm that goes into the convolution."""

    def __init__(self, before: int, after: int, *, deploy: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=deploy)
        self.norm = nn.Identity() if deploy else nn.BatchNorm2d(after)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Head(nn.Module):
    """Classes or boxes at each place, with YOLOR's implicit shift and scale until it is deployed."""

    def __init__(self, channels: int, values: int, *, deploy: bool = False) -> None:
        super().__init__()
        self.deploy = deploy
        self.conv = nn.Conv2d(channels, values, 1)
        if not deploy:
            self.shift = nn.Parameter(0.1 * torch.randn(1, channels, 1, 1))
            self.scale = nn.Parameter(1 + 0.1 * torch.randn(1, values, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.deploy:
            return self.conv(x).flatten(2)
        return (self.scale * self.conv(x + self.shift)).flatten(2)


class Detector(nn.Module):
    """Classes and boxes; behind them a second pair of heads that only the loss reads."""

    def __init__(self, classes: int = 4, *, deploy: bool = False, auxiliary: bool = True) -> None:
        super().__init__()
        self.stem = Down(3, 8, deploy=deploy)
        self.stage = nn.Sequential(
            Down(8, 16, deploy=deploy), RepConv(16, deploy=deploy), RepConv(16, deploy=deploy)
        )
        self.classes, self.boxes = Head(16, classes, deploy=deploy), Head(16, 4, deploy=deploy)
        self.auxiliary = nn.ModuleList([Head(8, classes), Head(8, 4)] if auxiliary else [])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        early = self.stem(image)
        late = self.stage(early)
        found = {"classes": self.classes(late), "boxes": self.boxes(late)}
        for number, head in enumerate(self.auxiliary):
            found[f"auxiliary{number}"] = head(early)
        return found


def build() -> nn.Module:
    """As it is trained."""
    return Detector()


def deployed() -> nn.Module:
    """As it runs, the auxiliary heads kept for whoever wants to train on."""
    network = Detector(deploy=True)
    network.auxiliary = nn.ModuleList([Head(8, 4, deploy=True), Head(8, 4, deploy=True)])
    return network.eval()


if __name__ == "__main__":
    torch.manual_seed(0)
    network = build()
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))  # statistics of the norms
    raw = {name: tensor + 0.01 for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 299, "model": raw, "ema": {"model": network.state_dict()}}, sys.argv[1])
