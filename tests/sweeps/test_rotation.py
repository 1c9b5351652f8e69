"""A handful of timm's families, another one every day, folded and judged; all of them if asked (`-m slow`).

`REPARAMKIT_ROTATION=n` takes the n-th handful instead of the day's.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from tests.sweeps.jobs import Limits, build, run_all
from tests.sweeps.measure import Row, last_line, measure
from tests.sweeps.networks import Job, Network, chosen

HANDFUL = 4
SECONDS = 60
SLOW = {
    "byoanet", "coat", "convmixer", "deepseek_vit", "efficientvit_msra", "gemma4_vit", "inception_v4",
    "mobilenetv5", "nasnet", "pnasnet", "sequencer", "swin_transformer_v2_cr", "tiny_vit", "tnt",
    "vision_transformer_sam",
}  # fmt: skip
"""Those that take more than ten seconds on one core."""
FAMILIES = chosen("timm")


def _rotation() -> list[str]:
    number = int(os.environ.get("REPARAMKIT_ROTATION") or date.today().toordinal())
    quick = [family for family in FAMILIES if family not in SLOW]
    start = HANDFUL * number
    return [quick[(start + i) % len(quick)] for i in range(HANDFUL)]


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


@pytest.mark.parametrize("family", _rotation())
def test_the_day_s_handful_folds_to_the_same_function(family: str) -> None:
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
