"""Convolutions that a network calls as functions are expanded in its captured graph."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from tests.training.expand.nets import batch, random_net


class Functional(nn.Module):
    """Two convolutions on parameters, with a batch norm in between: (N, 3, H, W) -> (N, 8, H', W')."""

    def __init__(self, padding: Any = 1) -> None:
        super().__init__()
        self.padding = padding
        self.first = nn.Parameter(torch.ones(8, 3, 3, 3))
        self.first_bias = nn.Parameter(torch.ones(8))
        self.norm = nn.BatchNorm2d(8)
        self.stem = nn.ParameterDict(OrderedDict(weight=nn.Parameter(torch.ones(8, 8, 3, 3))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(F.conv2d(x, self.first, self.first_bias, padding=self.padding)).relu()
        return F.conv2d(y, self.stem["weight"], stride=2)


@pytest.mark.diagonal(1)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["module", "program", "script", "source"])
def test_functional_convolutions_are_expanded_in_the_captured_graph(form: str) -> None:
    model, x = random_net(Functional()), batch()
    given: Any = {
        "module": lambda: model,
        "program": lambda: torch.export.export(model, (x,)),
        "script": lambda: torch.jit.trace(model, x),
        "source": lambda: rk.Source(torch.export.export(model, (x,)), "net", None, (x,)),
    }[form]()
    expanded = rk.expand(given, None if form in ("program", "source") else x, "dbb")
    report = rk.expansion_report(expanded)
    assert len(report.expanded) == 2
    assert any("captured as a graph" in note for note in report.notes)
    folded = rk.fold(expanded, x)
    assert folded.after == {"conv2d": 2, "relu": 1}
    plain = rk.fold(given, x).after
    assert plain.get("conv2d", 0) + plain.get("convolution", 0) == 2  # the latter in TorchScript
    value = expanded(x)
    value = value[0] if isinstance(value, tuple) else value
    assert torch.allclose(value, model(x), rtol=1e-3, atol=1e-4 * float(model(x).detach().abs().max()))
    again = pickle.loads(pickle.dumps(expanded))(x)
    assert torch.equal(again[0] if isinstance(again, tuple) else again, value)
    names = [name for name, _ in expanded.named_parameters()]
    assert not any(name in ("first", "first_bias", "stem.weight") for name in names)
    expanded.train()
    out = expanded(x)
    (out[0] if isinstance(out, tuple) else out).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in expanded.parameters())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["module", "script"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_functional_convolutions_with_a_named_padding(form: str, padding: str) -> None:
    model, x = random_net(Functional(padding)), batch()
    expanded = rk.expand(torch.jit.trace(model, x) if form == "script" else model, x)
    assert len(rk.expansion_report(expanded).expanded) == 2
    value = expanded(x)
    value = value[0] if isinstance(value, tuple) else value
    assert torch.allclose(value, model(x), rtol=1e-3, atol=1e-4 * float(model(x).detach().abs().max()))
