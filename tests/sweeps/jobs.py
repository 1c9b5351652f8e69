"""Each network in a process of its own, with a time limit and a memory limit; the rows as lines of JSON.

The processes are forked from one that has imported the library and computed nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from reparamkit.capture.export import SECONDS_PER_ATTEMPT
from tests.sweeps import peers_peft, peers_transformers, peers_ultralytics
from tests.sweeps.measure import Row, measure
from tests.sweeps.networks import Job, Network, build_timm
from tests.sweeps.torchvision_networks import build_torchvision

GIGABYTE = 2**30
BUILDERS: dict[str, Callable[[str], Network]] = {
    "peft": peers_peft.build,
    "transformers": peers_transformers.build,
    "ultralytics": peers_ultralytics.build,
}
"""Libraries whose networks have one size each."""


@dataclass(frozen=True)
class Limits:
    """Of one network."""

    seconds: float
    memory_gb: float
    attempt: float = SECONDS_PER_ATTEMPT
    """Seconds of one attempt to capture it with free sizes."""


def default_results(name: str) -> Path:
    """Where the lines go if nobody says: a cache of the user's, nothing of the repository."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = root / "reparamkit-sweeps"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir())
    return folder / f"{name}.jsonl"


def kept_rows(path: Path) -> dict[str, Row]:
    """Name -> the last row that was written for it."""
    known = {f.name for f in fields(Row)}
    rows: dict[str, Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):  # a line that an interruption cut short
            values = {k: v for k, v in json.loads(line).items() if k in known}
            rows[values["name"]] = Row(**values)
    return rows


def run_all(
    jobs: list[Job], path: Path, limits: Limits, at_once: int, side: str, dynamic: Any
) -> Iterator[Row]:
    """Measure every job, `at_once` at a time; each row is on disk when it is yielded."""
    fork = multiprocessing.get_context("fork")
    commit = _commit()
    waiting, running = list(reversed(jobs)), list[tuple[Job, ForkProcess, float, Path]]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop()
                target = Path(folder) / f"{len(waiting)}.json"
                process = fork.Process(target=_work, args=(job, target, limits, side, dynamic))
                process.start()
                running.append((job, process, time.monotonic(), target))
            time.sleep(0.05)
            for entry in list(running):
                job, process, started, target = entry
                late = time.monotonic() - started > limits.seconds
                if process.is_alive() and not late:
                    continue
                row = _collected(job, process, target, late, limits)
                row.seconds["total"] = time.monotonic() - started
                row.made, row.commit = datetime.now().isoformat(timespec="seconds"), commit
                running.remove(entry)
                with path.open("a") as lines:
                    lines.write(json.dumps(asdict(row)) + "\n")
                yield row


def _collected(job: Job, process: ForkProcess, target: Path, late: bool, limits: Limits) -> Row:
    if process.is_alive():
        process.kill()
    process.join()
    if target.exists():
        return Row(**json.loads(target.read_text()))
    row = Row(job.library, job.family, job.name)
    stage = target.with_suffix(".stage")
    row.stage = stage.read_text() if stage.exists() else "build"
    if late:
        row.status, row.error = "timeout", f"no answer within {limits.seconds:.0f} s"
    else:
        row.error = f"the process ended with exit code {process.exitcode}"
    return row


def _work(job: Job, target: Path, limits: Limits, side: str, dynamic: Any) -> None:
    """In the child."""
    torch.set_num_threads(1)
    memory = int(limits.memory_gb * GIGABYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    row = Stages(job.library, job.family, job.name)
    row.told = lambda stage: _replace(target.with_suffix(".stage"), stage)
    measure(row, lambda: build(job, side), dynamic, limits.attempt)
    row.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    _replace(target, json.dumps(asdict(row)))


class Stages(Row):
    """A row that says aloud which stage it has come to, for the case that the process is killed."""

    told: Callable[[str], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "stage" and self.told is not None:
            self.told(value)


def build(job: Job, side: str) -> Network:
    """The network of a job."""
    if job.library in BUILDERS:
        return BUILDERS[job.library](job.name)
    return (build_timm if job.library == "timm" else build_torchvision)(job.name, side)


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def _commit() -> str:
    """The commit of the engine, with a "+ changes" if reparamkit/ differs from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        " + changes" if git("status", "--short", "../../reparamkit") else ""
    )
