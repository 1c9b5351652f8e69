"""What the command folds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.cli.running import (
    HERE,
    SHAPE,
    Branchy,
    Run,
    assert_refused,
    assert_same_as_branchy,
    branchy,
    content,
    save_exported,
)
from tests.loading.files import write_scripted
from tests.nets import noise, randomised


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "convs", "norms", "adds", "left"),
    [
        ("repvgg_a0", 44, 61, 44, 22),
        pytest.param("mobileone_s0", 191, 226, 212, 43, marks=pytest.mark.slow),
    ],
)
def test_a_reference_model_by_name(
    run: Run, tmp_path: Path, name: str, convs: int, norms: int, adds: int, left: int
) -> None:
    result = run("fold", name, "--input", "1x3x64x64", "--dynamic", "none")
    assert result.status == 0, result.err
    assert list(content(tmp_path)) == [f"{name}.folded.pt2"]
    rows = [line.split() for line in result.out.splitlines()]
    assert ["conv2d", str(convs), str(left)] in rows
    assert ["batch_norm", str(norms), "0"] in rows
    assert ["add", str(adds), "0"] in rows
    assert f"{name}  (fixed sizes)" in result.out
    program = torch.export.load(tmp_path / f"{name}.folded.pt2")
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert sum("conv2d" in t for t in targets) == left
    assert not any("batch_norm" in t or "add" in t for t in targets)


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("named", [True, False])
def test_inputs_that_are_no_images(run: Run, tmp_path: Path, named: bool) -> None:
    ids, mask = ("ids:", "mask:") if named else ("", "")
    inputs = ["--input", f"{ids}2x9:int64:0..49", "--input", f"{mask}2x9:bool"]
    result = run("fold", f"{HERE}:words", *inputs, "-o", "words.onnx")
    assert result.status == 0, result.err
    model = onnx.load(tmp_path / "words.onnx")
    assert [entry.name for entry in model.graph.input] == ["ids", "mask"]
    types = [entry.type.tensor_type.elem_type for entry in model.graph.input]
    assert types == [onnx.TensorProto.INT64, onnx.TensorProto.BOOL]
    assert "1 operator that might be expected to fold and stays" in result.out
    assert_refused(run("fold", f"{HERE}:words", "--input", "2x9:int64"), "integers need a range")


def test_a_callable_of_a_module_in_the_current_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd_net_of_test_cli.py").write_text(f"from {HERE} import branchy as build\n")
    path = list(sys.path)
    result = run("fold", "cwd_net_of_test_cli:build", "--input", SHAPE)
    monkeypatch.delitem(sys.modules, "cwd_net_of_test_cli")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "build.folded.pt2")
    assert sys.path == path


def test_a_pt2_file_brings_its_inputs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_exported(tmp_path / "in" / "my.net.pt2")
    result = run("fold", "in/my.net.pt2")
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"in/my.net.pt2", "in/my.net.folded.pt2"}
    assert_same_as_branchy(tmp_path / "in" / "my.net.folded.pt2")


def test_a_pt2_file_with_a_free_batch_given_one_image(run: Run, tmp_path: Path) -> None:
    save_exported(tmp_path / "net.pt2")
    result = run("fold", "net.pt2", "--input", "1x4x8x8", "-o", "out.pt2")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "out.pt2")


def test_inputs_are_given_in_order_keywords_too(run: Run, tmp_path: Path) -> None:
    class Scaled(Branchy):
        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale

    inputs = (noise(2, 4, 9, 8, dtype=torch.float32),), {"scale": noise(2, 1, 1, 1, dtype=torch.float32)}
    torch.export.save(torch.export.export(randomised(Scaled()), *inputs), tmp_path / "net.pt2")
    assert run("inspect", "net.pt2").status == 0
    result = run("inspect", "net.pt2", "--input", "2x4x9x8", "--input", "2x1x1x1")
    assert result.status == 0, result.err


def test_a_torchscript_file(run: Run, tmp_path: Path) -> None:
    write_scripted(tmp_path / "net.pt", randomised(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))))
    assert "give --input, for instance" in assert_refused(run("fold", "net.pt"))
    result = run("fold", "net.pt", "--input", SHAPE, "-o", "out.pt2")
    assert result.status == 0, result.err
    assert "1 fold, each proven" in result.out
    assert (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda state: state, ""),
        (lambda state: {"epoch": 3, "state_dict": state}, "found under 'state_dict'"),
        (lambda state: {"model": state}, "found under 'model'"),
        (lambda state: {"model": {}, "model_ema": state}, "found under 'model_ema'"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, ""),
        (
            lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
            "found under 'state_dict'",
        ),
    ],
    ids=["plain", "state_dict", "model", "model_ema", "ddp", "nested ddp"],
)
def test_weights_with_a_model(
    run: Run, tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], note: str
) -> None:
    torch.save(wrap(branchy().state_dict()), tmp_path / "w.pth")
    result = run("fold", "w.pth", "--model", f"{HERE}:Branchy", "--input", SHAPE)
    assert result.status == 0, result.err
    assert (note in result.out) if note else ("found under" not in result.out)
    assert "training mode" in result.out
    assert_same_as_branchy(tmp_path / "w.folded.pt2")


def test_a_pickled_module(run: Run, tmp_path: Path) -> None:
    torch.save(branchy(), tmp_path / "net.pt")
    before = content(tmp_path)
    assert_refused(run("fold", "net.pt", "--input", SHAPE), "a pickle can run code", "--trust-pickle")
    assert content(tmp_path) == before
    result = run("fold", "net.pt", "--input", SHAPE, "--trust-pickle")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "net.folded.pt2")
