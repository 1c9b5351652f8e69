"""`reparamkit fold … --into`: run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.running import Run, assert_refused
from tests.into import pairs
from tests.nets import noise, randomised

NETS = """
from tests.into import pairs

def train(): return pairs.trained("repvgg")
def deploy(): return pairs.deployed("repvgg")
def other(): return pairs.deployed("mobileone")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    torch.save(randomised(pairs.trained("repvgg"), seed=1).state_dict(), tmp_path / "weights.pth")
    return tmp_path


FOLD = ("fold", "weights.pth", "--model", "nets:train", "--input", "1x3x8x8", "--dynamic", "none")


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reparamkit", *FOLD, *arguments]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_both_files(folder: Path) -> None:
    done = in_a_process(folder, "--into", "nets:deploy", "-o", "deploy.pth", "-o", "deploy.safetensors")
    assert done.returncode == 0, done.stderr
    assert "deploy.pth: 8 tensors for Net, load_state_dict(strict=True); equivalent" in done.stdout
    original, fresh = randomised(pairs.trained("repvgg"), seed=1), pairs.deployed("repvgg")
    fresh.load_state_dict(torch.load(folder / "deploy.pth", weights_only=True), strict=True)
    x = noise(2, 3, 8, 8, seed=7, dtype=torch.float32)
    torch.testing.assert_close(fresh(x), original(x), rtol=1e-4, atol=1e-5)
    assert (folder / "deploy.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--into", "nets:other", "-o", "x.pth"], "without a partner in the target"),
        (["--into", "nets:deploy", "-o", "x.onnx"], "go into .pth or .safetensors"),
        (["--into", "nets deploy", "-o", "x.pth"], "it has to be MODULE:CALLABLE"),
        (["--into", "nets:missing", "-o", "x.pth"], "has no 'missing'"),
        (["--into", "nets:deploy", "-o", "nowhere/x.pth"], "the folder nowhere does not exist"),
    ],
)
def test_bad_input(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert_refused(run(*FOLD, *arguments), words)
    finally:
        sys.modules.pop("nets", None)
    assert not list(folder.glob("x.*"))


def test_numbers_of_a_table_that_no_size_shows_are_told(folder: Path, run: Run) -> None:
    (folder / "words.py").write_text(
        "from tests.into.test_load_into import Words\n"
        "def adapted(): return Words(True).eval()\n"
        "def base(): return Words(False).eval()\n"
    )
    given = ("fold", "words.py:adapted", "--into", "words.py:base", "--input", "2x6:int64:0..49", "-q")
    fixed = run(*given, "--dynamic", "none", "-o", "fixed.pth")
    assert fixed.status == 0, fixed.err
    assert "note: 48 of 256 numbers of places.weight follow from the network" in " ".join(fixed.err.split())
    free = run(*given, "-o", "free.pth")
    assert (free.status, free.err) == (0, "")
