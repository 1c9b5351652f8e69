"""`torch.jit.trace` of a folded network: right at other sizes too, or it says that it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

import reparamkit as rk
from tests.nets import Net, noise, randomised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")

X, OTHER = noise(2, 3, 8, 6, dtype=torch.float32), noise(3, 3, 9, 14, seed=1, dtype=torch.float32)
OF_SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "range": lambda y: y + torch.arange(y.shape[2], dtype=y.dtype).view(1, 1, -1, 1),
    "range from": lambda y: y[:, :, 1:] * torch.arange(1, y.shape[2], dtype=y.dtype).view(1, 1, -1, 1),
    "half": lambda y: y[:, :, : y.shape[2] // 2],
    "other half": lambda y: y[..., y.shape[-1] // 2 :],
    "narrow": lambda y: y.narrow(2, 1, y.shape[2] - 2),
    "nearest": lambda y: F.interpolate(y, size=(y.shape[2] * 2, y.shape[3] + 1)),
    "bilinear": lambda y: F.interpolate(y, size=(y.shape[2] * 2, y.shape[3] + 1), mode="bilinear"),
    "bicubic": lambda y: F.interpolate(y, size=(y.shape[2] * 2, y.shape[3] + 1), mode="bicubic"),
    "pooled": lambda y: F.adaptive_avg_pool2d(y, (y.shape[2] // 2, 1)),
    "padded": lambda y: F.pad(y, (0, y.shape[3] % 4)),
    "repeated": lambda y: y.mean(0, keepdim=True).repeat(y.shape[0], 1, 1, 1),
    "filled": lambda y: torch.full((y.shape[0], 1, 1, y.shape[3]), 0.5) * y,
    "zeros": lambda y: torch.cat([y, torch.zeros(y.shape[0], 1, y.shape[2], y.shape[3])], 1),
    "flattened": lambda y: y.reshape(y.shape[0], -1),
    "scaled": lambda y: y / math.prod(y.shape[2:]),
}


def _folded(form: Callable[[Tensor], Tensor]) -> tuple[nn.Module, nn.Module]:
    def forward(s: Any, x: Tensor) -> Tensor:
        return form(s.norm(s.conv(x)))

    parts = {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
    network = randomised(Net(forward, **parts))
    return network, rk.fold(network, X, verify=False).module


@pytest.mark.parametrize("name", OF_SIZES)
def test_sizes_are_recorded(name: str) -> None:
    network, module = _folded(OF_SIZES[name])
    traced = torch.jit.trace(module, (X,))
    for x in X, OTHER:
        torch.testing.assert_close(traced(x), network(x))


def test_what_is_not_recorded_is_told() -> None:
    network, module = _folded(lambda y: y.roll(y.shape[2] // 2, 2))
    with pytest.warns(TracerWarning, match="right for inputs of this size only"):
        traced = torch.jit.trace(module, (X,))
    torch.testing.assert_close(traced(X), network(X))
