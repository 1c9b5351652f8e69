"""The reference models of up to 100 M parameters as packages. All of them by hand: pytest -m slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from reparamkit.models import names
from tests.sweeps import coreml as sweep

SMALL = [name for name in names() if sweep.parameters_of(name) <= sweep.MOST_PARAMETERS]
FAST = ["repvgg_a0"]


def _lowered(name: str, precision: str, folder: Path) -> sweep.Row:
    row = sweep.Row(name, "reference", precision)
    sweep.lower(row, folder / "net.mlpackage")
    return row


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_some_in_float32(tmp_path: Path, name: str) -> None:
    row = _lowered(name, "float32", tmp_path)
    assert row.e1 <= row.budget
    assert row.converted == row.folded


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_all_in_float32(tmp_path: Path, name: str) -> None:
    row = _lowered(name, "float32", tmp_path)
    assert row.e1 <= row.budget
    assert row.converted == row.folded


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in SMALL if name.startswith(("repvgg_a", "fastvit", "convnextv2"))]
)
def test_some_in_float16(tmp_path: Path, name: str) -> None:
    row = _lowered(name, "float16", tmp_path)
    assert row.e1 <= row.budget
    assert row.converted == row.folded
