"""The campaign's findings: a few mutants of every kind in every run, all of them under the slow mark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engine.mutants.mutants import MUTANTS

ROOT = Path(__file__).parents[3]
FEW = {
    "batch norm: sign of the mean": "proof",
    "add: overwritten instead of added": "proof",
    "conv: same padding on the near side": "proof",
    "rounded: 0.3 % off": "proof",
    "rounded: by way of half": "proof",
    "rise: other readers not asked": "proof",
    "surgery: a copy that shows goes": "in place",
    "surgery: guards read one input": "in place",
    "siblings: pieces to the wrong reader": "proof",
    "surgery: pieces to the wrong reader": "in place",
    "rewrite: another fold's layers": "in place",
}
SUBJECTS = ("repvgg", "shared_piece", "hands_back", "two_inputs", "siblings_linear", "same_padding", "chain")


def _campaign(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """What became of every mutant; a process of its own, since the engine must not have been imported."""
    file = folder / "mutants.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.engine.mutants.campaign", "--json", str(file)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert file.exists(), done.stdout + done.stderr
    return {result["name"]: result for result in json.loads(file.read_text())}


def test_there_are_a_hundred_and_each_has_one_place() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 100
    for mutant in MUTANTS:
        source = (ROOT / "reparamkit" / mutant.file).read_text()
        compile(mutant.applied(source), mutant.file, "exec")


def test_a_few_are_caught_where_they_should_be(tmp_path: Path) -> None:
    found = _campaign(tmp_path, "--only", *FEW, "--subjects", *SUBJECTS)
    assert {name: result["verdict"] for name, result in found.items()} == FEW


@pytest.mark.slow
def test_none_is_left_to_the_whole_network(tmp_path: Path) -> None:
    found = _campaign(tmp_path)
    assert len(found) == len(MUTANTS)
    unexpected = [r for m in MUTANTS if not m.expected((r := found[m.name])["verdict"])]
    assert unexpected == []
    verdicts = Counter(result["verdict"] for result in found.values())
    assert verdicts["proof"] + verdicts["in place"] >= 100
