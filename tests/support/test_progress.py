"""Phases: told of in order with their times to whoever listens, and to nobody else."""

from __future__ import annotations

import threading

import pytest
import torch

import reparamkit as rk
from reparamkit.support.progress import Path, phase, reporting
from tests.cli.running import branchy


class Heard:
    """What was told."""

    def __init__(self) -> None:
        self.begun: list[tuple[Path, str]] = []
        self.over: list[Path] = []
        self.seconds: list[float] = []

    def started(self, path: Path, detail: str) -> None:
        self.begun.append((path, detail))

    def finished(self, path: Path, seconds: float) -> None:
        self.over.append(path)
        self.seconds.append(seconds)


def test_phases_inside_others_are_parts_of_those() -> None:
    heard = Heard()
    with phase("before"), reporting(heard):
        with phase("a"), phase("b", "1 of 2"):
            pass
        with phase("c"):
            pass
    with phase("after"):
        pass
    assert heard.begun == [(("a",), ""), (("a", "b"), "1 of 2"), (("c",), "")]
    assert heard.over == [("a", "b"), ("a",), ("c",)]
    assert all(seconds >= 0 for seconds in heard.seconds)


def test_what_fails_is_over_too() -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="x"), reporting(heard), phase("a"), phase("b"):
        raise ValueError("x")
    assert heard.over == [("a", "b"), ("a",)]
    with reporting(heard), phase("c"):
        pass
    assert heard.over[-1] == ("c",)


def test_other_threads_are_not_heard() -> None:
    heard = Heard()

    def work() -> None:
        with phase("elsewhere"):
            pass

    with reporting(heard):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert heard.begun == []


def test_a_fold_names_what_it_does() -> None:
    heard = Heard()
    with reporting(heard):
        rk.fold(branchy(), torch.randn(2, 4, 9, 8))
    outer = [path[0] for path, _ in heard.begun if len(path) == 1]
    assert outer == ["capturing", "folding", "verifying"]
    parts = {path[1:] for path, _ in heard.begun if len(path) > 1}
    assert {("proofs",), ("the whole graph in float64",), ("reference",), ("candidate",)} <= parts
    assert (("folding", "proofs"), "1 of 1") in heard.begun
    assert (("verifying", "reference"), "on 'example'") in heard.begun
