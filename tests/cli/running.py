"""The command line run in this process or another, and networks for it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.nets import assert_same, noise, randomised

HERE = "tests.cli.running"
ROOT = Path(__file__).resolve().parents[2]
SHAPE = "1x4x9x8"


class Branchy(nn.Module):
    """Three branches, and a product of two values, which stays."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.skip = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.wide(x) + self.narrow(x) + self.skip(x))
        return y * y


class Choosy(Branchy):
    """Control flow on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def branchy() -> nn.Module:
    return randomised(Branchy())


class Words(nn.Module):
    """Integers and a mask come in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        self.mix = nn.Conv1d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(self.norm(self.mix(self.table(ids).transpose(1, 2)))) * mask[:, None]


def words() -> nn.Module:
    return randomised(Words())


def training() -> nn.Module:
    return branchy().train()


class Siblings(nn.Module):
    """Two convolutions of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x).relu(), self.right(x).sigmoid()


def heads() -> nn.Module:
    return randomised(Siblings())


def choosy() -> nn.Module:
    return randomised(Choosy())


class Bare(nn.Module):
    """Control flow on the data, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def choosy_norms() -> nn.Module:
    return nn.Sequential(Bare(), two_norms()).eval()


def two_norms() -> nn.Module:
    layers = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
    return randomised(nn.Sequential(*layers))


def broken() -> nn.Module:
    model = branchy()
    with torch.no_grad():
        model.get_parameter("wide.0.weight")[0, 0, 0, 0] = math.nan
        model.get_parameter("skip.bias")[1] = math.inf
    return model


@dataclass(frozen=True)
class Result:
    """What a run of the command line left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $R is the command."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "R": f"{sys.executable} -m reparamkit.cli.app", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def assert_refused(result: Result, *words: str) -> str:
    """A complaint with these words, one line unless it gives advice, and nothing on stdout."""
    assert result.status == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    before, mark, message = result.err.rstrip("\n").partition("reparamkit: error: ")
    assert mark
    assert before == ""
    assert message.count("\n") == ("No registered variant fits it." in words)
    for word in words:
        assert word in message
    return message


def save_exported(path: Path, batch: int = 2) -> Path:
    auto = torch.export.Dim.AUTO
    x = noise(batch, 4, 9, 8, dtype=torch.float32)
    torch.export.save(
        torch.export.export(branchy(), (x,), dynamic_shapes=({0: auto, 2: auto, 3: auto},)), path
    )
    return path


def assert_same_as_branchy(path: Path) -> None:
    """The `.pt2` computes what `branchy` does, at another batch and size."""
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(branchy()(x), torch.export.load(path).module()(x), 2e-5)
