"""Ten comparisons whose JSON was recorded before there was one comparator: it stays as it was, to the byte.

The recorded answers are lines of `recorded/answers.jsonl`, each a document without its line breaks. Numbers
hang on the processor and on the libraries: where these are not those of the recording, all but numbers and
versions is held.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.running import Run

RECORDED = Path(__file__).parent / "recorded"
PROCESSOR = "AVX512"
SIZES = ("--input", "2x3x16x16")
QUESTIONS = {
    "an ONNX file of it": ("nets:base", "base.onnx", *SIZES),
    "an exported program of it": ("nets:base", "base.pt2", *SIZES),
    "a wrong file": ("nets:base", "wrong.onnx", *SIZES),
    "a wrong network": ("nets:base", "nets:wrong", *SIZES),
    "nothing that could differ": ("nets:constant", "nets:constant", *SIZES),
    "two files": ("base.onnx", "base.pt2"),
    "bfloat16": ("nets:base", "nets:half", *SIZES),
    "another architecture": ("repvgg_toy", "mobileone_toy"),
    "limits": ("nets:base", "base.onnx", *SIZES, "--atol", "1e-3", "--rtol", "0"),
    "another seed": ("nets:base", "base.onnx", *SIZES, "--seed", "7"),
}


def _answers() -> dict[str, Any]:
    lines = (RECORDED / "answers.jsonl").read_text().splitlines()
    return {name: json.loads(line) for name, line in zip(QUESTIONS, lines, strict=True)}


def _but_numbers(text: str) -> str:
    return re.sub(r'"inf"|-?\d+(\.\d+)?(e[+-]?\d+)?', "#", text)  # a ratio of two equal outputs is "inf"


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_was_answered_is_answered(name: str, run: Run, tmp_path: Path) -> None:
    for file in RECORDED.iterdir():
        shutil.copy(file, tmp_path)
    recorded = _answers()[name]
    asked = run("check", *QUESTIONS[name], "--json", "answer.json")
    assert asked.status == recorded["exit_status"]
    answer = json.loads((tmp_path / "answer.json").read_text())
    versions, there = answer["versions"], recorded["versions"]
    ours = {"reparamkit", "python"}
    same_libraries = {k: v for k, v in versions.items() if k not in ours} == {
        k: v for k, v in there.items() if k not in ours
    }
    expected = json.dumps({**recorded, "versions": versions}, indent=2)
    given = (tmp_path / "answer.json").read_text().rstrip("\n")
    if same_libraries and torch.backends.cpu.get_cpu_capability() == PROCESSOR:
        assert given == expected
    assert _but_numbers(given) == _but_numbers(expected)
