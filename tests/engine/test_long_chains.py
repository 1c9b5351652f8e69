"""Networks far deeper than Python's stack."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.slow_share import few


class Chain(nn.Module):
    """x, many times scaled per channel and handed through an operator that lets such maps pass."""

    def __init__(self, length: int, *, transposes: bool) -> None:
        super().__init__()
        self.scales = nn.ParameterList(torch.linspace(0.9, 1.1, 3)[:, None, None] for _ in range(length))
        self.transposes = transposes

    def forward(self, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = x * scale
            if self.transposes:
                x = x.transpose(2, 3)
        return x


@pytest.mark.parametrize("transposes", few([False, True], True))
def test_a_chain_of_a_thousand_maps_folds(transposes: bool) -> None:
    model = Chain(1000, transposes=transposes).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    outcome = fold_program(capture(model, (x,), dynamic=False))
    torch.testing.assert_close(outcome.module(x), model(x), rtol=1e-9, atol=0)
    products = sum(
        node.op == "call_module" or "mul" in str(node.target) for node in outcome.module.graph.nodes
    )
    assert products < 100
