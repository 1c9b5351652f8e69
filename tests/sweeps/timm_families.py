"""Fold every family of timm (or torchvision), and say what became of it.

    python -m tests.sweeps.timm_families [--library torchvision] [-j 2] [--family NAME | --model NAME | --all]
    python -m tests.sweeps.timm_families --hand-written

What is measured stays in a file of JSON lines and is not measured again without --fresh. A run over the
smallest models of all families writes its page beside this file. Exit status 1 says that a network is not ok.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

import torch

from reparamkit.capture.export import SECONDS_PER_ATTEMPT
from tests.sweeps import hand_written
from tests.sweeps.jobs import Limits, default_results, kept_rows, run_all
from tests.sweeps.measure import last_line
from tests.sweeps.networks import Job, timm_jobs
from tests.sweeps.tables import cells, header, page, plain, say, summary
from tests.sweeps.torchvision_networks import torchvision_jobs

PAGES = {"timm": "timm_families.md", "torchvision": "torchvision_models.md"}
FREE_PAGES = {"timm": "timm_free_sizes.md", "torchvision": "torchvision_free_sizes.md"}


def main() -> None:
    """Measure what is not measured yet, and write the tables."""
    options = _options()
    torch.set_num_threads(1)
    jobs = _jobs(options)
    what = "hand-written" if options.hand_written else options.library
    path = options.results or default_results(f"{what}-{options.size}-{options.dynamic}")
    kept = {} if options.fresh else kept_rows(path)
    missing = [job for job in jobs if job.name not in kept]
    dynamic = False if options.dynamic == "no" else options.dynamic
    limits = Limits(options.seconds, options.memory, options.attempt)
    for number, row in enumerate(run_all(missing, path, limits, options.j, options.size, dynamic), 1):
        say(f"{number}/{len(missing)} {'  '.join(c for c in cells(row) if c)}")
        for line in [
            *row.alarms,
            *row.notes,
            *([f"[{row.stage}] {last_line(row.error)}"] if row.error else []),
        ]:
            say(f"    {line}")
    rows = kept_rows(path)
    found = [rows[job.name] for job in jobs if job.name in rows]
    if options.hand_written:
        say(plain(hand_written.comparison(found)))
    else:
        say(plain([header(), *(cells(row) for row in found)]))
        say(summary(found))
    if not (options.hand_written or options.family or options.model or options.all) or options.page:
        fixed = options.dynamic == "no"
        name = PAGES[options.library] if fixed else FREE_PAGES[options.library]
        target = options.page or Path(__file__).with_name(name)
        version = importlib.metadata.version(options.library)
        command = "python -m tests.sweeps.timm_families"
        command += "" if options.library == "timm" else f" --library {options.library}"
        command += "" if fixed else f" --dynamic {options.dynamic}"
        target.write_text(page(options.library, version, jobs, rows, command))
        say(f"written: {target}")
    raise SystemExit(any(row.status != "ok" or row.alarms for row in found))


def _jobs(options: argparse.Namespace) -> list[Job]:
    if options.hand_written:
        return hand_written.jobs()
    of = timm_jobs if options.library == "timm" else torchvision_jobs
    return of(options.family, options.model, every=options.all, recompute=options.recompute)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", choices=tuple(PAGES), default="timm")
    parser.add_argument("--family", action="append", default=[], metavar="NAME")
    parser.add_argument("--model", action="append", default=[], metavar="NAME")
    parser.add_argument("--all", action="store_true", help="all models, not the smallest of each family")
    parser.add_argument("--hand-written", action="store_true", help="beside timm's own folds, at full size")
    parser.add_argument("--recompute", action="store_true", help="choose the smallest models anew")
    parser.add_argument("--size", help='side of the image: "auto" (reduced), "full", or a number')
    parser.add_argument("--dynamic", choices=("no", "batch", "auto"), default="no", help="sizes kept free")
    parser.add_argument("-j", type=int, default=1, metavar="N", help="networks at a time")
    parser.add_argument("--seconds", type=float, default=600, help="time limit of one network")
    parser.add_argument(
        "--attempt",
        type=float,
        default=SECONDS_PER_ATTEMPT,
        help="time limit of one attempt to capture with free sizes",
    )
    parser.add_argument("--memory", type=float, default=6, help="memory limit of one network, GiB")
    parser.add_argument("--results", type=Path, help="the JSON lines (default: in the user's cache)")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    options = parser.parse_args()
    options.size = options.size or ("full" if options.hand_written else "auto")
    return options


if __name__ == "__main__":
    main()
