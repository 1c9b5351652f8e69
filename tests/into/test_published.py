"""The reference networks at their full size, into the classes that their authors deploy."""

from __future__ import annotations

import pytest
import torch

import reparamkit as rk
from reparamkit.models.random_weights import randomize
from tests.into.deploy_classes import deployed

SIZES = {
    "repvgg_a0": 64,
    "repvgg_b1g4": 32,
    "mobileone_s0": 64,
    "mobileone_s4": 64,
    "replknet_31b": 64,
    "fastvit_t8": 64,
    "fastvit_sa12": 64,
}
"""Network -> the size of the image that it is captured and compared with."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_into_the_deployed_class(name: str) -> None:
    image = torch.randn(2, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(0))
    original = randomize(rk.models.create(name), seed=0, sample=image).eval()
    folded = rk.fold(original, image, dynamic=False)
    loaded = rk.load_into(folded, deployed(name))
    assert loaded.equivalence.passed
    fresh = deployed(name)
    fresh.load_state_dict(loaded.state_dict(), strict=True)
    verdict = rk.check(original, fresh, image)
    assert verdict.passed
    assert verdict.e1 <= verdict.budget
