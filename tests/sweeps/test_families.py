"""One network of every family of timm, folded and judged; two of them in every run."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sweeps.jobs import Limits, build, run_all
from tests.sweeps.measure import Row, last_line, measure
from tests.sweeps.networks import Job, Network, chosen

SECONDS = 60
FAMILIES = chosen("timm")


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """An exception where the block has not ended by then."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _quietly(job: Job) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own, when a network is built
        return build(job, "auto")


def _assert_ok(row: Row) -> None:
    assert row.status == "ok", (
        f"{row.name}, at {row.stage}: {last_line(row.error) or (row.e0, row.e1, row.e64)}"
    )
    assert not row.alarms
    assert row.worst_proof <= 1e-10


@pytest.mark.parametrize("family", ["resnet", "vision_transformer"])
def test_two_families_fold_to_the_same_function(family: str) -> None:
    job = Job("timm", family, FAMILIES[family])
    row = Row("timm", family, job.name)
    with _bounded(SECONDS):
        measure(row, lambda: _quietly(job))
    _assert_ok(row)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_folds_to_the_same_function(family: str, tmp_path: Path) -> None:
    job = Job("timm", family, FAMILIES[family])
    for row in run_all([job], tmp_path / "rows.jsonl", Limits(600, 8), 1, "auto", False):
        _assert_ok(row)
