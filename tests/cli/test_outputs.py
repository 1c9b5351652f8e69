"""What the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from tests.cli.running import (
    HERE,
    SHAPE,
    Run,
    assert_same_as_branchy,
    branchy,
    choosy,
    content,
    save_exported,
)
from tests.nets import assert_same, noise


def test_several_outputs_and_json(run: Run, tmp_path: Path) -> None:
    result = run(
        "fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2", "-o", "b.onnx", "--json", "c.json"
    )
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"a.pt2", "b.onnx", "c.json"}
    assert_same_as_branchy(tmp_path / "a.pt2")
    convs = [n for n in onnx.load(tmp_path / "b.onnx").graph.node if n.op_type == "Conv"]
    assert [len(n.input) for n in convs] == [3]
    found = json.loads((tmp_path / "c.json").read_text())
    assert list(found) == [
        "schema",
        "name",
        "sizes",
        "before",
        "after",
        "folds",
        "refusals",
        "undone",
        "parts",
        "notes",
        "equivalence",
        "files",
        "seconds",
    ]
    assert (found["schema"], found["name"]) == (1, "branchy")
    assert (found["before"]["batch_norm"], found["after"].get("batch_norm", 0)) == (3, 0)
    (fold,) = found["folds"]
    assert fold["operators"] == {
        "aten.batch_norm.default": 3,
        "aten.conv2d.default": 2,
        "aten.add.Tensor": 2,
    }
    assert list(fold["layers"].values()) == ["Conv2d 4 -> 4, 3x3"]
    assert 0 < fold["float64_error"] < 1e-10
    (refusal,) = found["refusals"]
    assert refusal["operator"] == "aten.mul.Tensor"
    assert found["notes"] == found["undone"] == found["parts"] == []
    assert found["equivalence"]["passed"] is True
    assert found["equivalence"]["e1"] <= found["equivalence"]["budget"]
    assert [f["path"] for f in found["files"]] == ["a.pt2", "b.onnx"]
    assert [f["equivalence"]["passed"] for f in found["files"]] == [True, True]
    assert found["files"][1]["operators"]["Conv"] == 1


def test_inspect_writes_nothing(run: Run, tmp_path: Path) -> None:
    save_exported(tmp_path / "net.pt2")
    before = content(tmp_path)
    result = run("inspect", "net.pt2")
    assert result.status == 0, result.err
    assert content(tmp_path) == before
    assert "1 fold, each proven in float64" in result.out
    assert "it multiplies two values that both depend on the network's input" in result.out
    assert "equivalent" not in result.out
    result = run("inspect", "net.pt2", "--json", "net.json")
    found = json.loads((tmp_path / "net.json").read_text())
    assert found["equivalence"] is None
    assert found["files"] == []
    assert len(found["folds"]) == 1


def test_an_older_output_is_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.pt2").write_text("old")
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2").status == 0
    assert list(content(tmp_path)) == ["out.pt2"]
    assert_same_as_branchy(tmp_path / "out.pt2")


@pytest.mark.parametrize(
    ("dynamic", "sizes"),
    [("auto", "free batch and spatial sizes"), ("batch", "free batch size"), ("none", "fixed sizes")],
)
def test_dynamic(run: Run, dynamic: str, sizes: str) -> None:
    result = run("inspect", f"{HERE}:branchy", "--input", SHAPE, "--dynamic", dynamic)
    assert f"branchy  ({sizes})" in result.out


def test_training_mode_is_said_once(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:training", "--input", SHAPE)
    assert result.status == 0
    assert result.out.count("the model was in training mode; a copy in eval mode was folded") == 1
    assert_same_as_branchy(tmp_path / "training.folded.pt2")


# Networks that fold in parts only


def test_a_network_in_parts_is_saved_whole(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:choosy", "--input", SHAPE, "--json", "c.json")
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"choosy.folded.pt", "c.json"}
    assert "choosy  (in parts, free batch and spatial sizes)" in result.out
    assert "2 parts of the network folded, 0 left as they were" in result.out
    assert "note: the network cannot be captured as a whole: its control flow depends on" in result.out
    assert "choosy.folded.pt: equivalent: error" in result.out
    assert "holds 2 Conv2d, 1 BatchNorm2d" in result.out
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["parts"][0] == {
        "where": "wide",
        "folded": True,
        "reason": "",
        "sizes": "free batch and spatial sizes",
    }
    assert [f["path"] for f in found["files"]] == ["choosy.folded.pt"]
    loaded = torch.load(tmp_path / "choosy.folded.pt", weights_only=False)
    for sign in (1, -1):
        x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32) * sign
        with torch.no_grad():
            assert_same(choosy()(x), loaded(x), 2e-5)


@pytest.mark.parametrize("outputs", [("-o", "out.pt2"), ("-o", "out.onnx"), ("-o", "a.pt", "-o", "b.pt2")])
def test_a_network_in_parts_cannot_be_exported(run: Run, tmp_path: Path, outputs: tuple[str, ...]) -> None:
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    result = run("fold", f"{HERE}:choosy", "--input", SHAPE, *outputs, "--json", "c.json")
    assert result.status == 2
    assert "2 folds, each proven" in result.out, "the report is not lost"
    message = result.err.rpartition("reparamkit: error: ")[2]
    assert f"cannot write {outputs[-1]}: the network as a whole cannot be exported" in message
    assert f"under the suffix .pt: {Path(outputs[-1]).with_suffix('.pt')}" in message
    assert content(tmp_path) == before


def test_inspect_of_a_network_in_parts(run: Run, tmp_path: Path) -> None:
    result = run("inspect", f"{HERE}:choosy", "--input", SHAPE)
    assert result.status == 0, result.err
    assert "2 parts of the network folded" in result.out
    assert content(tmp_path) == {}


def test_a_whole_module_can_be_written_too(run: Run, tmp_path: Path) -> None:
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt", "-o", "b.pt2").status == 0
    assert set(content(tmp_path)) == {"a.pt", "b.pt2"}
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(branchy()(x), torch.load(tmp_path / "a.pt", weights_only=False)(x), 2e-5)
