"""A run that is interrupted goes on as if nothing had happened, bit by bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.training import Trained, train
from reparamkit.training.checkpoint import open_checkpoint
from reparamkit.training.loop import Loop
from tests.training.small import FAST, NET, ROOT, command, flags

EVERYTHING: dict[str, Any] = FAST | {
    "epochs": 3,
    "checkpoint_every": 2,
    "accumulate": 2,
    "flip": 0.5,
    "erasing": 0.3,
    "mixup": 0.3,
    "cutmix": 0.3,
    "weight_decay_end": 0.2,
    "clip_grad": 1.0,
    "min_crop": 0.5,
    "label_smoothing": 0.1,
    "channels_last": True,
    "amp": "bf16",
}


class Interrupted(Exception):
    """Stands for a kill that gives no chance to write anything."""


def assert_equal_checkpoints(first: Path, second: Path) -> None:
    ours, theirs = open_checkpoint(first), open_checkpoint(second)
    for kind in ("raw", "ema"):
        expected = theirs.weights(kind)
        for name, value in ours.weights(kind).items():
            assert value.equal(expected[name]), f"{kind} {name}"
    _assert_same(ours.state(), theirs.state(), "state")


def _assert_same(first: Any, second: Any, where: str) -> None:
    if isinstance(first, torch.Tensor):
        assert first.equal(second), where
    elif isinstance(first, dict):
        for key in first:
            if key not in ("seconds", "images_per_second"):
                _assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        pairs = list(enumerate(zip(first, second, strict=True)))
        for place, (ours, theirs) in pairs[:4] if where.endswith(".sums") else pairs:
            _assert_same(ours, theirs, f"{where}[{place}]")
    else:
        assert first == second, where


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(NET, out=folder, **EVERYTHING)
    return folder


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("updates", [3, 5, 8])
def test_a_run_killed_anywhere_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, updates: int
) -> None:
    original, count = Loop._update, 0

    def until(self: Loop, *arguments: Any) -> bool:
        nonlocal count
        count += 1
        if count > updates:
            raise Interrupted
        return original(self, *arguments)

    monkeypatch.setattr(Loop, "_update", until)
    with pytest.raises(Interrupted):
        train(NET, out=tmp_path, **EVERYTHING)
    monkeypatch.setattr(Loop, "_update", original)
    torch.manual_seed(123)  # what was drawn in between must not matter
    train(NET, out=tmp_path, resume=True, **EVERYTHING)
    for folder in ("last", "best", "best_ema"):
        assert_equal_checkpoints(whole / folder, tmp_path / folder)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.slow
def test_kill_9_in_an_epoch(tmp_path: Path, whole: Path) -> None:
    settings = {name: value for name, value in EVERYTHING.items() if name != "channels_last"}
    process = subprocess.Popen(
        command("train", NET, "--no-fold", "--channels-last", *flags(**settings), "--out", str(tmp_path)),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    manifest = tmp_path / "last" / "checkpoint.json"
    deadline = time.monotonic() + 120
    while not manifest.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert open_checkpoint(tmp_path / "last").about.epoch < 3
    train(NET, out=tmp_path, resume=True, **EVERYTHING)
    assert_equal_checkpoints(whole / "last", tmp_path / "last")


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_exits_with_0(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("train", NET, *flags(**(FAST | {"epochs": 5000})), "--out", str(tmp_path)),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "stopped after update" in said
    assert "go on with --resume" in said
    about = open_checkpoint(tmp_path / "last").about
    assert (about.epoch, about.update) > (1, 0)


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path, whole: Path, number: int) -> None:
    before = signal.getsignal(number)

    def stop(text: str) -> None:
        if text.startswith("epoch 1/"):
            os.kill(os.getpid(), number)

    stopped = train(NET, out=tmp_path, say=stop, **EVERYTHING)
    assert stopped.stopped == number
    assert (stopped.epoch, stopped.update) == (1, 1)
    assert signal.getsignal(number) is before
    train(NET, out=tmp_path, resume=True, **EVERYTHING)
    assert_equal_checkpoints(whole / "last", tmp_path / "last")


def test_a_run_stopped_at_the_end_of_an_epoch_still_validates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    original, count = Loop._update, 0

    def last(self: Loop, *arguments: Any) -> bool:
        nonlocal count
        count += 1
        return original(self, *arguments) or count == 5

    monkeypatch.setattr(Loop, "_update", last)
    stopped = train(NET, out=tmp_path, **EVERYTHING)
    assert (stopped.epoch, stopped.update, stopped.history) == (0, 5, [])
    monkeypatch.setattr(Loop, "_update", original)
    train(NET, out=tmp_path, resume=True, **EVERYTHING)
    assert_equal_checkpoints(whole / "last", tmp_path / "last")


def test_two_runs_of_one_seed_are_equal_and_of_another_are_not(tmp_path: Path) -> None:
    runs: list[Trained] = [
        train(NET, out=tmp_path / str(place), **(FAST | {"seed": seed}))
        for place, seed in enumerate((1, 1, 2))
    ]
    first, second, third = (run.module.state_dict()["head.weight"] for run in runs)
    assert first.equal(second)
    assert not first.equal(third)


def test_without_a_checkpoint_resume_starts(tmp_path: Path) -> None:
    said: list[str] = []
    train(NET, out=tmp_path / "run", resume=True, say=said.append, **(FAST | {"epochs": 1}))
    assert any("no checkpoint" in text and "starting" in text for text in said)
    assert (tmp_path / "run" / "last" / "model.safetensors").exists()


def test_a_resumed_run_keeps_its_settings(tmp_path: Path) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 2, "label_smoothing": 0.1}))
    again = train(out=tmp_path / "run", resume=True, epochs=3)
    assert [row["epoch"] for row in again.history] == [1, 2, 3]
    assert "label_smoothing: 0.1" in (tmp_path / "run" / "config.yaml").read_text()
