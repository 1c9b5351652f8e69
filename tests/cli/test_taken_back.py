"""Folds that were taken back are told, and fail where that is asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from reparamkit.operators.base import _READERS, Call, Meaning
from tests.cli.running import HERE, SHAPE, Run, content, two_norms
from tests.nets import assert_same, noise


@pytest.fixture
def wrong_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms of six channels are read with another epsilon."""
    right = _READERS["aten.batch_norm.default"]

    def wrong(call: Call) -> Meaning:
        if call.value("input").shape[1] != 6:
            return right(call)
        return right(dataclasses.replace(call, arguments={**call.arguments, "eps": 0.5}))

    monkeypatch.setitem(_READERS, "aten.batch_norm.default", wrong)


@pytest.mark.usefixtures("wrong_norms")
def test_a_fold_that_was_taken_back_is_told(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:two_norms", "--input", SHAPE, "-o", "out.pt2", "--json", "c.json")
    assert result.status == 0, result.err
    assert "1 fold failed its own check and was taken back" in result.out
    assert "1 fold, each proven" in result.out
    found = json.loads((tmp_path / "c.json").read_text())
    (undone,) = found["undone"]
    assert (undone["where"], undone["operator"]) == ("4", "aten.batch_norm.default")
    assert "the float64 check failed: relative error" in undone["reason"]
    assert undone in found["refusals"]
    assert (found["before"]["batch_norm"], found["after"]["batch_norm"]) == (2, 1)
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(two_norms()(x), torch.export.load(tmp_path / "out.pt2").module()(x), 2e-5)


@pytest.mark.usefixtures("wrong_norms")
@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_strict(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    output = ("-o", "out.pt2") if command == "fold" else ()
    arguments = (f"{HERE}:two_norms", "--input", SHAPE, *output, "--json", "c.json", "--strict")
    result = run(command, *arguments)
    assert result.status == 1
    assert "1 fold failed its own check and was taken back" in result.out
    last = result.err.splitlines()[-1]
    assert last.startswith(
        "reparamkit: verification failed: 1 fold failed its own check and was taken back: 4: batch_norm "
        "'batch_norm_1': the float64 check failed: relative error"
    )
    assert content(tmp_path) == before
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_strict_where_every_fold_is_right(run: Run, command: str) -> None:
    result = run(command, f"{HERE}:two_norms", "--input", SHAPE, "--strict")
    assert result.status == 0, result.err
    assert "taken back" not in result.out


@pytest.mark.usefixtures("wrong_norms")
def test_strict_in_parts(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:choosy_norms", "--input", SHAPE, "--strict")
    assert result.status == 1
    assert "taken back: 1.4: batch_norm" in result.err
    assert content(tmp_path) == {}
