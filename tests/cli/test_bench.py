"""`reparamkit bench` by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import Run

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
"""


def test_a_table_json_and_csv(run: Run) -> None:
    Path("nets.py").write_text(NET)
    result = run(
        *("bench", "nets.py:build", "--input", "1x3x8x8", "--rounds", "2", "--backends", "eager,onnxruntime"),
        *("--json", "bench.json", "--csv", "bench.csv"),
    )
    assert result.status == 0, result.err
    assert "as fast as it came" in result.out
    assert "1 thread, medians of 2 rounds in turn" in " ".join(result.out.split())
    rows = json.loads(Path("bench.json").read_text())["rows"]
    assert [(row["backend"], row["form"]) for row in rows] == [
        *(("eager", "original"), ("eager", "folded")),
        *(("onnxruntime", "original"), ("onnxruntime", "onnxsim"), ("onnxruntime", "folded")),
    ]
    assert len(Path("bench.csv").read_text().splitlines()) == 6


def test_a_network_that_is_named_twice_is_told(run: Run) -> None:
    Path("nets.py").write_text(NET)
    result = run("bench", "nets.py:build", "nets.py:build", "--input", "1x3x8x8", "--rounds", "1")
    assert result.status == 2
    assert "named twice" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mobileone_s0", "--backends", "tflite"], "there is no back end 'tflite'"),
        (["mobileone_s0", "--size", "large"], "--size takes sizes such as 224x224"),
        (["mobileone_s0", "--rounds", "0"], "--rounds has to be at least 1"),
        (["mobileone_s9"], "did you mean mobileone_s4"),
        (["nothing.pt2"], "nothing.pt2"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, arguments: list[str], words: str) -> None:
    result = run("bench", *arguments)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
