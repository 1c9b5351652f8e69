"""Shapes that are read off another tensor do not keep that tensor alive."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import randomised


class LinearNorm(nn.Module):
    """LeViT's linear layer: a batch norm over the flattened tokens."""

    def __init__(self, reshape: str) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.reshape = reshape

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        shaped: Tensor = getattr(self.norm(x.flatten(0, 1)), self.reshape)(x)
        return shaped.relu()


@pytest.mark.parametrize("reshape", ["reshape_as", "view_as"])
@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_the_norm_goes_into_the_linear_layer(reshape: str, dynamic: Any) -> None:
    model = randomised(LinearNorm(reshape)).double().eval()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    module = fold_program(capture(model, (x,), dynamic=dynamic)).module
    torch.testing.assert_close(module(x), model(x), rtol=1e-10, atol=1e-12)
    assert [str(n.target) for n in module.graph.nodes if n.op == "call_function"] == ["aten.relu.default"]
    if dynamic:
        other = torch.randn(2, 7, 6, dtype=torch.float64)
        torch.testing.assert_close(module(other), model(other), rtol=1e-10, atol=1e-12)
