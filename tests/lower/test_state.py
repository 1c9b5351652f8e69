"""A file without memory is not written for a network that has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.errors import CannotWrite


class Counting(nn.Module):
    """Writes into a buffer in every call, and uses it or not."""

    count: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3), how
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.how == "filled anew":
            self.count.copy_(x.mean())
            return y * self.count
        self.count += 1
        return y * self.count if self.how == "read" else y


@pytest.mark.parametrize("how", ["read", "only written", "filled anew"])
def test_onnx(how: str, tmp_path: Path) -> None:
    folded = rk.fold(Counting(how).eval(), torch.randn(2, 3, 8, 8), dynamic=False)
    if how != "read":
        folded.save(tmp_path / "net.onnx")
        return
    with pytest.raises(CannotWrite, match="an ONNX file cannot keep what the network writes into 'count'"):
        folded.save(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
