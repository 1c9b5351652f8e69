"""Small networks, folded once and saved in many ways, and what a package on the disk says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import randomised

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Branches(nn.Module):
    """A stem and a block of three branches, a pooling, a classifier of five classes."""

    def __init__(self, padding: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=padding)
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = torch.relu(self.wide(x) + self.point(x) + self.norm(x))
        return self.head(x.mean((2, 3)))


def branches(padding: int = 1) -> Branches:
    return randomised(Branches(padding)).eval()


def folded(model: nn.Module, inputs: Any = IMAGE, **options: Any) -> rk.Folded:
    return rk.fold(model, inputs, **options)


def spec_of(path: Path) -> Any:
    """The protobuf message of a package."""
    import coremltools

    return coremltools.utils.load_spec(str(path))


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a package, by its path in it."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
    }


def operations(path: Path) -> list[tuple[str, str]]:
    """Kind and name of every operator but constants, in order."""
    block = next(iter(spec_of(path).mlProgram.functions["main"].block_specializations.values()))
    return [(each.type, each.outputs[0].name) for each in block.operations if each.type != "const"]
