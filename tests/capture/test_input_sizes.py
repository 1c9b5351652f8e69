"""Sizes of intermediate tensors are computed from those of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import randomised


class Tokens(nn.Module):
    """A strided stem, and a linear layer with a batch norm over its flattened tokens."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.linear = nn.Linear(6, 8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().flatten(2).transpose(1, 2)
        x = self.linear(x)
        flat = self.norm(x.flatten(0, 1))
        if self.reads == "reshape_as":
            return flat.reshape_as(x).relu()
        batch, tokens, channels = x.shape
        return flat.reshape(batch, tokens, channels).relu()


@pytest.mark.parametrize("reads", ["reshape_as", "shape"])
@pytest.mark.parametrize("dynamic", [False, "batch", "auto"])
def test_a_tensor_read_for_its_size_alone_can_go(reads: str, dynamic: Any) -> None:
    model = randomised(Tokens(reads)).double().eval()
    x = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    module = fold_program(capture(model, (x,), dynamic=dynamic)).module
    assert "batch_norm" not in str(module.graph)
    sizes = {"batch": [(3, 3, 11, 8)], "auto": [(3, 3, 10, 9), (1, 3, 5, 17)]}.get(dynamic, [])
    for size in [(2, 3, 11, 8), *sizes]:
        other = torch.randn(size, dtype=torch.float64)
        torch.testing.assert_close(module(other), model(other), rtol=1e-10, atol=1e-12)


def test_formulas_are_written_down_once_and_have_values() -> None:
    program = capture(Tokens("reshape_as").eval(), (torch.randn(2, 3, 11, 8),), dynamic="auto")
    arithmetic = [n for n in program.graph.nodes if "built-in function" in str(n.target)]
    assert len(arithmetic) == len({(n.target, n.args) for n in arithmetic}) > 0
    assert all(isinstance(n.meta["val"], torch.SymInt) for n in arithmetic)


class DataDependent(nn.Module):
    """As many rows as there are positive numbers: no formula of the input's sizes."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        found = like.nonzero()
        return (x.sum() + found).flatten().reshape_as(found)


def test_what_is_no_formula_of_the_inputs_stays() -> None:
    example = torch.randn(3), torch.tensor([1.0, 0.0, 2.0, 3.0])
    program = capture(DataDependent().eval(), example, dynamic=False)
    assert "reshape_as" in str(program.graph)
    torch.testing.assert_close(fold_program(program).module(*example), DataDependent()(*example))


class CastFirst(Tokens):
    """What follows the inputs goes away when the graph is brought into one spelling."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(x.dtype))


@pytest.mark.parametrize("dynamic", ["batch", "auto"])
def test_the_first_operator_may_go(dynamic: str) -> None:
    model = randomised(CastFirst("reshape_as")).double().eval()
    x = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    module = fold_program(capture(model, (x,), dynamic=dynamic)).module
    assert "batch_norm" not in str(module.graph)
    torch.testing.assert_close(module(torch.cat([x, x])), model(torch.cat([x, x])), rtol=1e-10, atol=1e-12)


class Rounding(nn.Module):
    """Windows that cover a map whose sides are no multiples of theirs, with their number rounded somehow."""

    def __init__(self, rounded: Callable[[Any], Any]) -> None:
        super().__init__()
        self.rounded = rounded
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        side = self.rounded(x.shape[-1])
        x = nn.functional.interpolate(x, size=(x.shape[-2], side * 2))
        return x.reshape(*x.shape[:2], -1, side, 2).relu().sum(-1)


@pytest.mark.parametrize(
    "rounded",
    [
        lambda n: math.ceil(n / 2),
        lambda n: int(n * 1.5),
        lambda n: round(n / 3),
        lambda n: math.floor(n / 3) + 1,
        lambda n: torch.sym_max(n // 2, 5),
        lambda n: (n - 1) // 2 % 4 + 1,
        lambda n: n**2 // 16,
    ],
    ids=["ceil", "int", "round", "floor", "max", "mod", "square"],
)
@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_sizes_that_are_rounded_in_any_way(rounded: Callable[[Any], Any], dynamic: Any) -> None:
    model = randomised(Rounding(rounded)).double().eval()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    program = capture(model, (x,), dynamic=dynamic)
    module = fold_program(program).module
    assert "batch_norm" not in str(module.graph)
    torch.testing.assert_close(module(x), model(x), rtol=1e-10, atol=1e-12)
    if dynamic == "auto":
        assert set(program.axes[0]) >= {0, 2}
        other = torch.randn(3, 3, 10, 18 if 3 in program.axes[0] else 12, dtype=torch.float64)
        torch.testing.assert_close(module(other), model(other), rtol=1e-10, atol=1e-12)


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(
    ("rounded", "suffix"), [(lambda n: math.ceil(n / 2), ".pt2"), (lambda n: round(n / 3), ".onnx")]
)
def test_what_a_format_cannot_say_of_sizes_is_fixed_in_its_file(
    rounded: Callable[[Any], Any], suffix: str, tmp_path: Path
) -> None:
    """torch.export's archive knows no math.ceil, torch.onnx no round: the batch at least stays free."""
    folded = rk.fold(randomised(Rounding(rounded)).eval(), torch.randn(2, 3, 8, 12))
    assert folded.sizes == "free batch and spatial sizes"
    (saved,) = folded.save(tmp_path / f"net{suffix}")
    said = "the batch size alone is free, because with more of them"
    assert any(note.startswith(said) for note in saved.notes)
    probes = [entry.probe for entry in saved.equivalence.outputs]
    assert any("batch=3" in name and "height" not in name for name in probes)
