"""Whole networks, folded, converted, saved and evaluated, against the network they were made from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import reparamkit
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.support.garbage import only_new_garbage
from reparamkit.support.quiet import quiet
from tests.mil.programs import IOS, ct, normal

X = 64
FAMILIES = [
    "mobileone_s0",
    "repvgg_a0",
    "repvgg_d2se",
    "replknet_31b",
    "fastvit_sa12",
    "convnextv2_atto",
]


@cache
def _program(name: str) -> tuple[torch.export.ExportedProgram, torch.Tensor, torch.Tensor]:
    """The folded network, and what the original gives in float64 for the input."""
    torch.manual_seed(0)
    model = reparamkit.models.create(name).eval()
    x = normal(1, 3, X, X)
    folded = reparamkit.fold(model, x, dynamic=False, verify=False)
    program = folded.lowering.all_free.run_decompositions({})
    with torch.no_grad():
        return program, model(x), model.double()(x.double())


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).abs().max()) / float(wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ios"), [("fastvit_t8", 16), ("mobileone_s0", 18)])
def test_a_reference_model(tmp_path: Path, name: str, ios: int) -> None:
    program, plain, exact = _program(name)
    own = _relative(plain, exact)
    whole = _evaluated(program, tmp_path / "whole.mlpackage", ios, ct.precision.FLOAT32)
    assert _relative(whole, exact) <= 4 * own + 1e-6
    if name == "fastvit_t8":
        half = _evaluated(program, tmp_path / "half.mlpackage", ios, ct.precision.FLOAT16)
        assert 1e-4 < _relative(half, exact) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("ios", [16, 17, 18])
def test_every_family_of_the_reference_models(tmp_path: Path, name: str, ios: int) -> None:
    program, plain, exact = _program(name)
    whole = _evaluated(program, tmp_path / "whole.mlpackage", ios, ct.precision.FLOAT32)
    assert _relative(whole, exact) <= 4 * _relative(plain, exact) + 1e-6


def _evaluated(program: torch.export.ExportedProgram, path: Path, ios: int, precision: Any) -> torch.Tensor:
    with quiet(), only_new_garbage():
        made = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=IOS[ios],
            compute_precision=precision,
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
        )
        made.save(str(path))
    runner = CoreMlRunner(path)
    assert runner.precision == precision.value
    ((_, found),) = runner.run((normal(1, 3, X, X),), {})
    return found
