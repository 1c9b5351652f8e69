"""Folded transposed convolutions as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import reparamkit as rk
from fixtures.blocks.transposed_norm import GeneratorBlock, UpsamplingBranches
from reparamkit.lower.onnx import operator_counts


def test_transposed_convolutions_run_in_every_file(tmp_path: Path) -> None:
    """Groups, padding behind the output and dilation, at sizes other than the example's."""
    last = nn.ConvTranspose2d(8, 3, 3, stride=(1, 2), padding=1, output_padding=(0, 1), dilation=(1, 2))
    net = nn.Sequential(
        UpsamplingBranches(6, 8, groups=2), GeneratorBlock(8, 8, groups=4), last, nn.BatchNorm2d(3)
    )
    model = rk.models.randomize(net, 0).eval()
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    folded = rk.fold(model, x)
    saved = folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    assert all(file.equivalence.passed for file in saved)
    assert any("height=" in entry.probe for entry in saved[0].equivalence.outputs)
    counts = operator_counts(tmp_path / "net.onnx")
    assert counts == {"ConvTranspose": 3, "Relu": 2}
