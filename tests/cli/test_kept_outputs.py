"""Outputs that are kept and names that are given, from the command line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.cli.running import Run, assert_refused

HEADS = ("fold", "tests.cli.running:heads", "--input", "1x4x9x8")


def test_outputs_and_names(run: Run, tmp_path: Path) -> None:
    names = ("--input-names", "image", "--output-names", "scores", "--opset", "17")
    result = run(*HEADS, "--outputs", "output_1", *names, "-o", "net.onnx")
    assert result.status == 0, result
    assert "note: outputs dropped: 0; with them went 1 conv2d, 1 relu" in result.out
    model = onnx.load(tmp_path / "net.onnx")
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["scores"]
    assert [entry.version for entry in model.opset_import] == [17]
    assert [node.name for node in model.graph.node] == ["/right/Conv", "/Sigmoid"]


@pytest.mark.slow
def test_check(run: Run) -> None:
    assert run(*HEADS, "--outputs", "output_1", "-o", "net.onnx").status == 0
    sides = ("check", HEADS[1], "net.onnx", "--input", "1x4x9x8")
    result = run(*sides, "--outputs", "output_1")
    assert result.status == 0, result
    assert result.out.startswith("SAME: net.onnx against ")
    assert run(*sides).status != 0
    result = run(*sides, "--outputs", "1")
    assert result.status == 2, result
    assert "output '0' has the shape (1, 2, 9, 8) in" in result.out
    assert_refused(run(*sides, "--outputs", "0"), "--outputs 0 keeps nothing")


def test_inspect(run: Run) -> None:
    result = run("inspect", *HEADS[1:], "--outputs", "1")
    assert result.status == 0, result
    assert "note: outputs dropped: 1; with them went 1 conv2d, 1 sigmoid" in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--outputs", "scores"),
            "the network has no output 'scores': its outputs are 0 (output_0), 1 (output_1)",
        ),
        (("--outputs", "3"), "the first 3 outputs cannot be kept: the network has 2"),
        (("--output-names", "a"), "1 output name (a) for a network with 2 outputs (output_0, output_1)"),
        (
            ("--outputs", "1", "--output-names", "a,b"),
            "2 output names (a, b) for a network with 1 output (output_0)",
        ),
        (("--input-names", "a,b"), "2 input names (a, b) for a network with 1 input (x)"),
        (("--output-names", "x,y"), "the name 'x' is given to an input and to an output"),
        (("--output-names", "output_1,y"), "the output name 'output_1' is given to output 0"),
    ],
)
def test_what_does_not_fit_is_said_before_the_fold(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    from reparamkit import api

    monkeypatch.setattr(api, "capture", lambda *given, **how: pytest.fail("it was captured"))
    assert_refused(run(*HEADS, *options, "-o", "net.onnx"), words)
    assert not list(tmp_path.iterdir())
