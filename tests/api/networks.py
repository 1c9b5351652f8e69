"""Small networks that the tests of the public calls share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

import reparamkit as rk
from tests.loading.files import write_scripted, write_traced
from tests.nets import noise, randomised

FREE = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
F32 = 2e-5
"""Relative difference of two float32 runs that are the same function."""


class Block(nn.Module):
    """A convolution, a pointwise convolution and an identity, each with a batch norm, in 1 to 3 dims."""

    def __init__(self, channels: int = 4, dims: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.wide = nn.Sequential(conv(channels, channels, 3, padding=1, bias=False), norm(channels))
        self.narrow = nn.Sequential(conv(channels, channels, 1, bias=False), norm(channels))
        self.skip = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.wide(x) + self.narrow(x) + self.skip(x))


class Branchy(nn.Module):
    """Two blocks of three branches each, and what `end` makes of the result."""

    def __init__(self, end: Callable[[Tensor], Any] = torch.Tensor.contiguous, dims: int = 2) -> None:
        super().__init__()
        self.first = Block(dims=dims)
        self.second = Block(dims=dims)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.second(self.first(x)))


class Two(nn.Module):
    """Two inputs, the second by keyword and optional."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Block(), Block()

    def forward(self, x: Tensor, *, other: Tensor | None = None) -> Tensor:
        y: Tensor = self.left(x)
        return y if other is None else y + self.right(other)


class Flattened(nn.Module):
    """A classifier that reads its batch size as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Block(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.body(x), 1)
        result: Tensor = self.head(y.reshape(int(x.shape[0]), -1))
        return result


class Classifier(Flattened):
    """The same with a symbolic batch size."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.body(x), 1)
        result: Tensor = self.head(y.reshape(x.shape[0], -1))
        return result


class OneIsSpecial(Branchy):
    """A network that doubles its answer for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y * 2 if x.shape[0] == 1 else y


class Choosy(Branchy):
    """Control flow on the data."""

    def forward(self, x: Tensor) -> Any:
        return self.first(x) if x.sum() > 0 else self.second(x)


@dataclasses.dataclass
class Features:
    """An output that nobody has told torch.export about."""

    fine: Tensor
    coarse: Tensor


@dataclasses.dataclass
class SavedFeatures:
    """Another one: registering is for good, so each test needs its own."""

    fine: Tensor
    coarse: Tensor


ENDS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y, y.mean((2, 3))),
    "dict": lambda y: {"fine": y, "coarse": y.mean((2, 3))},
    "nested": lambda y: {"maps": [y, (y.mean((2, 3)),)]},
    "dataclass": lambda y: Features(y, y.mean((2, 3))),
}


def image(*shape: int, seed: int = 1) -> Tensor:
    return noise(*(shape or (1, 4, 9, 8)), seed=seed, dtype=torch.float32)


def net(model: nn.Module | None = None) -> nn.Module:
    return randomised(model or Branchy())


def run_onnx(path: Path, *inputs: Tensor) -> list[Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.asarray(y)) for y in session.run(None, fed)]


def scripted(folder: Path) -> rk.Source:
    return rk.load(write_scripted(folder / "net.pt", net(nn.Sequential(Block(), Block()))))


def traced(folder: Path) -> rk.Source:
    return rk.load(write_traced(folder / "net.pt"))
