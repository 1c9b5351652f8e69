"""timm's own networks, with random statistics: the counts of DESIGN.md section 1, judged against float64."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

import reparamkit as rk
from tests.nets import noise
from tests.timm_import import import_timm

COUNTS = {
    "mobileone_s0": (43, 0, 0, 0),
    "repvgg_a0": (22, 0, 0, 0),
    "fastvit_t8": (52, 0, 10, 1),
    "repghostnet_050": (95, 0, 16, None),
    "ghostnetv3_050": (137, 0, 16, None),
    "lcnetv2_small": (36, 0, 1, None),
}


def _model(name: str) -> Any:
    return rk.models.randomize(import_timm().create_model(name, pretrained=False), 0).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_timm_networks_fold_to_the_counts_of_the_design(name: str) -> None:
    model = _model(name)
    x = noise(1, 3, 64, 64, dtype=torch.float32)
    folded = rk.fold(model, x, dynamic=False)
    graph = torch.export.export(folded.module, (x,), strict=False).graph
    found = Counter(str(n.target).split(".")[1] for n in graph.nodes if n.op == "call_function")
    convs, norms, adds, muls = COUNTS[name]
    assert found["conv2d"] + found["convolution"] <= convs
    assert found["batch_norm"] <= norms
    assert found["add"] + found["add_"] <= adds
    if muls is not None and name == "fastvit_t8":
        assert found["mul"] + found["mul_"] <= muls
    verdict = folded.equivalence
    assert verdict is not None
    assert not verdict.differs  # lcnetv2's random weights let no probe change its output: it cannot be told
    assert verdict.e0 is not None
    assert verdict.e1 <= 4 * verdict.e0 + verdict.floor
    assert all(fold.error <= 1e-10 for fold in folded.folds)
