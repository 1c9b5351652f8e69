"""Data and networks small enough to be trained in a second, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from reparamkit.training import Data
from reparamkit.training.data.sources import Pairs

ROOT = Path(__file__).resolve().parents[2]
DATA = "tests.training.small:data"
NET = "tests.training.small:net"
PLAIN = "tests.training.small:plain"
FAST: dict[str, Any] = {
    "data": DATA,
    "input_size": 8,
    "batch_size": 24,
    "epochs": 2,
    "lr": 3e-3,
    "ema": 0.9,
}


def data() -> Data:
    """120 digits for training, 60 for validation."""
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in bunch.target_names]
    first, second = Pairs(images[:120], bunch.target[:120]), Pairs(images[120:180], bunch.target[120:180])
    return Data("small digits", names, first, second, (0.3,) * 3, (0.4,) * 3)


class Net(nn.Module):
    """Two branches with norms, dropout, and a linear classifier."""

    def __init__(self, classes: int = 10, dropout: float = 0.1) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(3, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8 * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.wide(x) + self.narrow(x)).flatten(1)
        logits: Tensor = self.head(self.dropout(y))
        return logits


def net() -> nn.Module:
    return Net()


def steady() -> nn.Module:
    """Without dropout: nothing is drawn while it trains."""
    return Net(dropout=0.0)


def plain() -> nn.Module:
    """Without norms either: one image does not depend on another."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))


def five_classes() -> nn.Module:
    return Net(5).eval()


def teacher() -> nn.Module:
    torch.manual_seed(5)
    return Net().eval()


def command(*arguments: str) -> list[str]:
    """The command line, from the sources."""
    return [sys.executable, "-m", "reparamkit", *arguments]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, from the root of the repository."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, **options
    )


def flags(**settings: object) -> list[str]:
    """Settings as flags."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
