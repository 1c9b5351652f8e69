"""Failures of verification, of the program and of the user's patience; missing packages."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

import reparamkit as rk
from reparamkit.errors import install_line
from tests.cli.running import HERE, SHAPE, Run, assert_refused, assert_same_as_branchy, content
from tests.spoiling import spoil


def test_a_failed_verification(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2", "--json", "out.json")
    assert result.status == 1
    assert result.out == ""
    assert "verification failed: the folded network is not equivalent" in result.err
    assert "Traceback" not in result.err
    assert content(tmp_path) == before


@pytest.mark.parametrize("first", [(), ("-o", "a.pt2")], ids=["alone", "after another"])
def test_a_file_that_fails_its_verification(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...]
) -> None:
    from reparamkit.lower import onnx as writer

    simplified = writer._simplified

    def wrong(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
        model = simplified(model, notes)
        weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy() * 1.01
        model.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name)
        )
        return model

    monkeypatch.setattr(writer, "_simplified", wrong)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, *first, "-o", "b.onnx", "--json", "c.json")
    assert result.status == 1
    assert "verification failed: b.onnx was not written: the file is not equivalent" in result.err
    assert "nothing written" in run("--help").out
    assert content(tmp_path) == {}


def test_an_error_of_ours(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(rk, "fold", fail, raising=False)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE)
    assert result.status == 3
    assert result.out == ""
    assert "ZeroDivisionError: ours" in result.err
    assert result.err.splitlines()[-1] == (
        "reparamkit: error: this should not have happened; please report it with the lines above"
    )
    assert content(tmp_path) == {}


def test_an_interruption(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reparamkit.lower.pt2.save_pt2", interrupted)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE)
    assert result.status == 130
    assert content(tmp_path) == {}


# Missing packages


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxsim", "onnxscript"])
def test_a_missing_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    start = time.perf_counter()
    message = assert_refused(run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2", "-o", "b.onnx"))
    assert message == (
        f"writing ONNX needs the package '{package}', which is not installed: {install_line('onnx')}"
    )
    assert time.perf_counter() - start < 5, "it is known before the work starts"
    assert content(tmp_path) == {}


def test_pt2_needs_no_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "onnxsim", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2").status == 0
    assert_same_as_branchy(tmp_path / "a.pt2")


def test_siblings_are_merged_where_that_is_asked_for(run: Run) -> None:
    address = f"{HERE}:heads"
    assert "siblings" not in run("inspect", address, "--input", SHAPE).out
    result = run("fold", address, "--input", SHAPE, "--merge-siblings", "-o", "merged.onnx")
    assert result.status == 0
    assert "merged_conv: 2 siblings as one Conv2d 4 -> 6" in " ".join(result.out.split())
