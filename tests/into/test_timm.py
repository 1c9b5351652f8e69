"""timm's families with a fold written by hand: our numbers in what timm's own fold leaves."""

from __future__ import annotations

import pytest
import torch

import reparamkit as rk
from reparamkit.models.random_weights import randomize
from tests.timm_import import import_timm

INTO = {
    "repvgg_a0": 64,
    "mobileone_s0": 64,
    "lcnetv2_small": 64,
    "fastvit_t8": 64,
    "repvit_m0_9": 224,
    "repghostnet_050": 64,
    "ghostnetv3_050": 64,
    "shvit_s1": 64,
    "iformer_t": 64,
    "levit_128s": 224,
    "tiny_vit_5m_224": 224,
    "efficientvit_m0": 224,
    "efficientvim_m1": 224,
    "nextvit_small": 224,
}
"""Network -> the image size that it is captured at."""


def _pair(name: str, size: int) -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]:
    timm = import_timm()
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    original = randomize(timm.create_model(name), seed=0, sample=image).eval()
    return original, timm.utils.reparameterize_model(timm.create_model(name).eval()), image


@pytest.mark.slow
@pytest.mark.parametrize("name", INTO)
def test_into_timm_s_own_folded_form(name: str) -> None:
    original, target, image = _pair(name, INTO[name])
    folded = rk.fold(original, image, dynamic=False, verify=False)
    loaded = rk.load_into(folded, target)
    assert not loaded.equivalence.differs
    target.load_state_dict(loaded.state_dict(), strict=True)
    # The folded network holds the same numbers, rounded to float32 as these are.
    networks = (original, folded.module, target)
    with torch.no_grad():
        expected, rounded, result = (network.double()(image.double()) for network in networks)
    assert _error(expected, result) < 4 * _error(expected, rounded) + 1e-6


def _error(expected: torch.Tensor, result: torch.Tensor) -> float:
    return float((expected - result).abs().max() / expected.abs().max())
