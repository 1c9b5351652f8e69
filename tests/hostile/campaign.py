"""Many random hostile networks, each compared with the original at ten sizes or more; a line of JSON each.

    python -m tests.hostile.campaign --seeds 0:3000 --jobs 2 --out results.jsonl
    python -m tests.hostile.campaign --out results.jsonl --summary
    python -m tests.hostile.campaign --show 17

Seeds that the file has already are left out, so that an interrupted run goes on. Worker processes take
chunks of seeds; one that says nothing for longer than a network may take is killed, and the seed counts as a
hang. The exit status is 1 if any network came out silently wrong, leaked or hung.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 60
"""Seconds for one network."""

CHUNK = 40
GRACE = 60
"""Seconds beyond the limit after which a process is killed: it starts, or is somewhere in C++."""

MEMORY = 6 * 2**30


def say(text: str) -> None:
    """A line for whoever reads the terminal, or the log of a worker."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class OutOfTime(BaseException):
    """A network took longer than its limit; nothing that catches `Exception` swallows it."""


def main() -> int:
    options = _options()
    if options.show is not None:
        from tests.hostile.networks import sample

        say(sample(options.show).script())
        return 0
    if options.worker:
        _work(_numbers(options.seeds), options.files)
        return 0
    out = Path(options.out)
    if not options.summary:
        _run(_numbers(options.seeds), out, options.jobs, options.files)
    rows = _rows(out)
    from tests.hostile.summary import summary

    say(summary(rows, verbose=options.verbose))
    return int(any(row["status"] in ("silent", "leak", "hang", "changed", "mode", "broken") for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0:3000", help="first:behind the last, or single ones with commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default="hostile.jsonl")
    parser.add_argument("--no-files", dest="files", action="store_false", help="compare the module alone")
    parser.add_argument("--summary", action="store_true", help="only summarise what the file holds")
    parser.add_argument("--verbose", action="store_true", help="every failure with its sizes")
    parser.add_argument("--show", type=int, help="print the program of a seed")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    first, colon, last = text.partition(":")
    return list(range(int(first), int(last))) if colon else [int(n) for n in text.split(",")]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The last line of each seed."""
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):  # a line that an interruption cut short
            row = json.loads(line)
            rows[row["seed"]] = row
    return [rows[seed] for seed in sorted(rows)]


# the parent


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    seeds: list[int]
    log: Path
    heard: float = field(default_factory=time.monotonic)
    told: int = 0
    read: int = 0


def _run(seeds: list[int], out: Path, jobs: int, files: bool) -> None:
    known = {row["seed"] for row in _rows(out)}
    waiting = [seed for seed in seeds if seed not in known]
    chunks = [waiting[i : i + CHUNK] for i in range(0, len(waiting), CHUNK)][::-1]
    workers: list[_Worker] = []
    total, started, count = len(waiting), time.monotonic(), 0
    try:
        while chunks or workers:
            while chunks and len(workers) < jobs:
                workers.append(_start(chunks.pop(), out, files))
            time.sleep(0.2)
            for worker in list(workers):
                rows = _heard(worker)
                late = time.monotonic() - worker.heard > LIMIT + GRACE
                if worker.process.poll() is not None or late:
                    rows += _heard(worker)
                    workers.remove(worker)
                    left = worker.seeds[worker.told :]
                    if late:
                        worker.process.kill()
                        worker.process.wait()
                    if left:
                        status = "hang" if late else "broken"
                        reason = (
                            f"no answer in {LIMIT + GRACE} s" if late else f"exit {worker.process.returncode}"
                        )
                        rows.append({"seed": left[0], "status": status, "reason": reason, "findings": []})
                        if left[1:]:
                            chunks.append(left[1:])
                    worker.log.unlink(missing_ok=True)
                with out.open("a") as lines:
                    lines.writelines(json.dumps(row) + "\n" for row in rows)
                for row in rows:
                    count += 1
                    spent = time.monotonic() - started
                    say(f"{count}/{total} {spent:.0f} s  {row['seed']} {row['status']} {row['reason'][:160]}")
    finally:
        for worker in workers:
            worker.process.kill()
            worker.log.unlink(missing_ok=True)


def _start(seeds: list[int], out: Path, files: bool) -> _Worker:
    log = out.with_name(f"{out.name}.{os.getpid()}.{seeds[0]}")
    command = [
        sys.executable,
        "-m",
        "tests.hostile.campaign",
        "--worker",
        "--seeds",
        ",".join(map(str, seeds)),
    ]
    with log.open("wb") as stdout:
        process = subprocess.Popen(
            [*command, *([] if files else ["--no-files"])],
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return _Worker(process, seeds, log)


def _heard(worker: _Worker) -> list[dict[str, Any]]:
    """The whole lines that a worker has written since."""
    text = worker.log.read_bytes()[worker.read :]
    whole = text[: text.rfind(b"\n") + 1]
    worker.read += len(whole)
    rows = [json.loads(line[4:]) for line in whole.splitlines() if line.startswith(b"ROW ")]
    if rows:
        worker.heard, worker.told = time.monotonic(), worker.told + len(rows)
    return rows


# the worker


def _work(seeds: list[int], files: bool) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    _registry_once()
    from tests.hostile.networks import sample
    from tests.hostile.outcome import Outcome, run

    def late(*_: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, late)
    for seed in seeds:
        signal.alarm(LIMIT)
        try:
            outcome = run(sample(seed), files)
        except OutOfTime:
            outcome = Outcome(seed, "hang", f"no answer in {LIMIT} s: {_where()}", seconds=LIMIT)
        except BaseException as error:
            outcome = Outcome(seed, "broken", f"{type(error).__name__}: {error} | {_where()}")
        finally:
            signal.alarm(0)
        say("ROW " + json.dumps(outcome.row()))


def _where() -> str:
    tail = traceback.extract_tb(sys.exc_info()[2])[-6:]
    return " > ".join(f"{Path(f.filename).name}:{f.lineno}" for f in tail)


def _registry_once() -> None:
    """torch.onnx reads its table of operators anew for each export, which takes longer than our networks."""
    from functools import cache

    with suppress(ImportError):
        from torch.onnx._internal.exporter import _registration

        registry: Any = _registration.ONNXRegistry
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))


if __name__ == "__main__":
    sys.exit(main())
