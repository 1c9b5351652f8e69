"""The whole way: train, fold, write, check, and agree on every digit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reparamkit as rk
from reparamkit.compare.compare import compare
from reparamkit.training import before_and_after, train, validate
from tests.cli.test_progress import on_terminal
from tests.training.small import FAST, PLAIN, ROOT, flags

TOYS = ("repnets_toy", "mobileone_toy", "repvgg_toy", "fastvit_toy")


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_a_trained_network_folds_to_files_that_agree_on_every_digit(tmp_path: Path, name: str) -> None:
    trained = train(name, "digits", out=tmp_path / "run", epochs=10, lr=3e-3)
    assert trained.history[-1]["top1"] > 0.95
    source = rk.load(tmp_path / "run")
    folded = rk.fold(source)
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    assert folded.after.get("batch_norm", 0) == 0
    files = [tmp_path / f"net.{suffix}" for suffix in ("onnx", "mlpackage")]
    folded.save(*files)
    for candidate in (folded.module, *files):
        comparison = compare(source, candidate, where=False).comparison
        assert comparison.status == "same", comparison.summary()
    result = validate([tmp_path / "run", *files], "digits")
    assert len(result.rows) == 4
    for row in result.rows:
        assert row.images == 360
        assert row.differing == ()
        assert row.top1 == result.rows[0].top1


@pytest.mark.slow
def test_accuracy_and_latency_before_and_after(tmp_path: Path) -> None:
    """No time is asserted."""
    train("repnets_toy", "digits", out=tmp_path, epochs=1, input_size=16)
    result = before_and_after(tmp_path)
    before, after = result.validation.rows
    assert after.name == f"{before.name} (folded)"
    assert after.differing == ()
    assert after.top1 == before.top1
    assert len(list(result.folded.parameters())) == 2 * 9 + 2
    assert all(timing.median > 0 and timing.mean > 0 for timing in result.latency)


def test_what_a_run_leaves(tmp_path: Path) -> None:
    train("repnets_toy", "digits", out=tmp_path, epochs=1, input_size=16)
    names = {path.name for path in tmp_path.iterdir()}
    files = {"config.yaml", "metrics.csv", "metrics.jsonl", "curves.png", "tensorboard"}
    assert names == files | {"last", "best", "best_ema"}
    for folder in ("last", "best", "best_ema"):
        assert (tmp_path / folder / "model.safetensors").exists()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_quiet_run_says_nothing_on_a_terminal(tmp_path: Path) -> None:
    settings = flags(**(FAST | {"epochs": 1}))
    status, out, sent = on_terminal(tmp_path, "train", PLAIN, *settings, "--out", "run", "--no-fold", "-q")
    assert (status, out, sent) == (0, "", "")
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_what_goes_otherwise_is_said_apart(tmp_path: Path) -> None:
    said, warned = list[str](), list[str]()
    settings = FAST | {"epochs": 1}
    train(PLAIN, out=tmp_path / "run", say=said.append, warn=warned.append, bar=False, **settings)
    assert any("epoch 1" in text for text in said)
    assert warned == []


@pytest.mark.slow
def test_the_example_prints_accuracy_and_latency(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "repnets.py"), str(tmp_path / "run")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "decisions that differ: 0 of 360" in finished.stdout
    assert re.search(r"latency +\d+\.\d+ ms as trained, \d+\.\d+ ms folded", finished.stdout)
    before, after = re.findall(r"(\d\.\d{4}) (?:as trained|folded)", finished.stdout)
    assert before == after
    assert float(before) > 0.95
