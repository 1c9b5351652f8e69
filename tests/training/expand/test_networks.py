"""Whole networks: expanded they are what they were, and folded they have the operators that they had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reparamkit as rk
from reparamkit.models import randomize
from reparamkit.training.expand.kinds import KINDS
from tests.timm_import import import_timm
from tests.training.expand.nets import UNet, batch, error64, random_net

TIMM = ("resnet18", "mobilenetv2_035", "regnetx_002", "convnext_atto", "efficientnet_b0")
EXPANDED = {  # kernels larger than one tap, on all axes; with mobileone also 1x1 on more than one pixel
    "resnet18": (17, 20),
    "mobilenetv2_035": (18, 52),
    "regnetx_002": (14, 44),
    "convnext_atto": (16, 40),
    "efficientnet_b0": (17, 49),
}


def timm_net(name: str) -> nn.Module:
    with torch.random.fork_rng():
        model: nn.Module = import_timm().create_model(name, num_classes=10)
    return randomize(model, sample=batch(4, 3, 64, 64, seed=9)).eval()


def assert_round_trip(model: nn.Module, x: torch.Tensor, kind: str) -> int:
    """Expand and fold; returns how many convolutions became blocks."""
    expanded = rk.expand(model, x, kind)
    report = rk.expansion_report(expanded)
    assert report.error < 1e-10
    assert error64(model, expanded, x) < 1e-10
    folded, plain = rk.fold(expanded, x), rk.fold(model, x)
    assert folded.after == plain.after
    assert max(fold.error for fold in folded.folds) < 1e-10
    assert not folded.undone
    assert error64(model, folded.module.double(), x) < 1e-4  # its weights are rounded, once
    return len(report.expanded)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, kind: str) -> None:
    model, x = timm_net(name), batch(4, 3, 64, 64)
    assert assert_round_trip(model, x, kind) == EXPANDED[name][kind == "mobileone"]


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_unet(kind: str) -> None:
    count = assert_round_trip(random_net(UNet()), batch(), kind)
    assert count == (5 if kind == "mobileone" else 4)
