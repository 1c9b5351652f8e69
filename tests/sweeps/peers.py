"""Fold the networks of other libraries, and hold what is left against the library's own fold.

    python -m tests.sweeps.peers --library peft [-j 2] [--model NAME]

PEFT's adapters are folded unmerged beside `merge_and_unload()`, ultralytics' YAML networks beside their own
`fuse()`; transformers has no fold, there no operator may become more frequent. The libraries are no
requirement of the tests: install them beside what `.[test]` installs (and, for
ultralytics, opencv-python-headless). Rows are kept as lines of JSON, so that a run that was cut short
goes on where it stopped. Exit status 1 says that a network is not ok.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.sweeps import peers_peft, peers_transformers, peers_ultralytics
from tests.sweeps.counting import more
from tests.sweeps.jobs import Limits, default_results, kept_rows, run_all
from tests.sweeps.measure import FACTOR, PROBES, Row, last_line
from tests.sweeps.networks import Job
from tests.sweeps.tables import markdown, plain, say, verdict

SOURCES: dict[str, Callable[[], list[Job]]] = {
    "peft": peers_peft.jobs,
    "transformers": peers_transformers.jobs,
    "ultralytics": peers_ultralytics.jobs,
}
OWN_FOLD = {"peft": "`merge_and_unload()`", "ultralytics": "`fuse()`", "transformers": ""}
COLUMNS = ("conv", "batch_norm", "other_norm", "linear", "matmul", "add", "mul", "total")

_READING = """\
Random weights, {sizes}. Operators are those of a fresh `torch.export` graph, before→after{beside};
total leaves nothing out, views neither. e0 and e1 are the float32 errors of the original and of the folded
network against the original's float64 run, relative to the output's scale, the worst of {probes} inputs;
right is e1 ≤ {factor:.0f}·e0 + a few ulp, and where a float64 fold was asked for a difference e64 of at most
1e-6 there. rounding: e1 is beyond that and at most 32·e0, and e64 is right. worse: more operators that
compute or copy, or more arithmetic (multiply-accumulates and
elements written), than {other}, more convolutions and matrices than after the library's own fold, or a
refusal that names what is gone."""
_SAME = 1.005
_STANDINGS = ("ok", "rounding", "worse", "wrong", "failed")


def main() -> None:
    """Measure what is not measured yet, and write the table."""
    options = _options()
    torch.set_num_threads(1)
    jobs = [job for job in SOURCES[options.library]() if not options.model or job.name in options.model]
    path = options.results or default_results(f"peers-{options.library}-{options.dynamic}")
    kept = {} if options.fresh else kept_rows(path)
    missing = [job for job in jobs if job.name not in kept]
    dynamic = False if options.dynamic == "no" else options.dynamic
    limits = Limits(options.seconds, options.memory, options.seconds / 4)
    for number, row in enumerate(run_all(missing, path, limits, options.j, "", dynamic), 1):
        say(f"{number}/{len(missing)} {'  '.join(c for c in cells(row) if c)}")
        for line in complaints(row):
            say(f"    {line}")
    rows = kept_rows(path)
    found = [rows[job.name] for job in jobs if job.name in rows]
    say(plain([header(), *(cells(row) for row in found)]))
    say(summary(found))
    if not options.model or options.page:
        target = options.page or Path(__file__).with_name(f"peers_{options.library}.md")
        target.write_text(page(options.library, options.dynamic, found))
        say(f"written: {target}")
    raise SystemExit(any(standing(row) != "ok" for row in found))


def standing(row: Row) -> str:
    """ok, rounding (beyond the bar, right in float64), worse than theirs or before, or what went wrong."""
    if row.status == "rounding":
        return row.status
    if row.status != "ok":
        return "wrong" if row.status == "inequivalent" else "failed"
    theirs = bool(row.kinds_theirs) and (
        _is_more(row, row.kinds_theirs, "theirs") or _layers(row.kinds) > _layers(row.kinds_theirs)
    )
    return "worse" if theirs or _is_more(row, row.kinds_before, "before") or row.gone else "ok"


def _layers(kinds: dict[str, int]) -> int:
    return kinds.get("conv", 0) + kinds.get("linear", 0)


def _is_more(row: Row, kinds: dict[str, int], whose: str) -> bool:
    """More operators that compute or copy, or more arithmetic, than there."""
    return sum(row.kinds.values()) > sum(kinds.values()) or row.costs["after"] > _SAME * row.costs[whose]


def header() -> list[str]:
    """The columns of `cells`."""
    return ["network", "input", "stands", "verdict", "e0", "e1", *COLUMNS, "cost (M)", "seconds"]


def cells(row: Row) -> list[str]:
    """One row: before→after, and what the library's own fold leaves in brackets."""
    seconds = f"{row.seconds.get('total', 0):.0f}"
    start = [row.name, row.size, standing(row), verdict(row), f"{row.e0:.1e}", f"{row.e1:.1e}"]
    if not row.after:
        return [*start[:4], "", "", *("" for _ in COLUMNS), "", seconds]
    costs = {what: f"{cost / 1e6:.2f}" for what, cost in row.costs.items()}
    cost = _change(costs["before"], costs["after"], costs.get("theirs", ""))
    counts = (_change(row.before[c], row.after[c], row.theirs.get(c, "")) for c in COLUMNS)
    return [*start, *counts, cost, seconds]


def _change(before: object, after: object, theirs: object) -> str:
    change = str(after) if before == after else f"{before}→{after}"
    return change if theirs == "" or before == after == theirs else f"{change} ({theirs})"


def complaints(row: Row) -> list[str]:
    """What is not as it should be, in words."""
    lines = [f"at {row.stage}: {last_line(row.error)}"] if row.error else []
    if row.kinds_theirs and (worse := more(row.kinds, row.kinds_theirs)):
        lines.append("more than the library's own fold leaves: " + _listed(worse))
    if risen := more(row.kinds, row.kinds_before):
        lines.append("more than before: " + _listed(risen))
    lines += [f"gone, and told of: {text}" for text in row.gone]
    notes = (n for n in row.notes if not n.startswith("the folded network stands for"))
    return [*lines, *row.alarms, *notes]


def _listed(changes: dict[str, str]) -> str:
    return ", ".join(f"{kind} {change}" for kind, change in changes.items())


def summary(rows: Sequence[Row]) -> str:
    """How many stand how, and how many refusals name what is gone."""
    by = {what: [r.name for r in rows if standing(r) == what] for what in _STANDINGS}
    lines = [
        f"- {len(names)} {what}" + ("" if what == "ok" or not names else f": {', '.join(names)}")
        for what, names in by.items()
    ]
    risen = [r.name for r in rows if more(r.kinds, r.kinds_before)]
    lines.append(f"- with a kind of operator that became more frequent: {', '.join(risen) or 'none'}")
    lines.append(f"- refusals that name an operator that is gone: {sum(len(r.gone) for r in rows)}")
    before = sum(r.before.get("total", 0) for r in rows if r.after)
    lines.append(f"- operators in all: {before}→{sum(r.after.get('total', 0) for r in rows)}")
    return "\n".join(lines)


def page(library: str, dynamic: str, rows: Sequence[Row]) -> str:
    """The whole page: how it was made, the summary, the table, what is left and why."""
    command = f"python -m tests.sweeps.peers --library {library}"
    command += "" if dynamic == "no" else f" --dynamic {dynamic}"
    versions = f"{library} {importlib.metadata.version(library)}, torch {torch.__version__}"
    dates = sorted(row.made for row in rows)
    sizes = sorted({row.captured for row in rows if row.captured})
    fold = OWN_FOLD[library]
    reading = _READING.format(
        sizes=", ".join(sizes),
        beside=f", and in brackets after {library}'s own {fold}" if fold else "",
        other=f"after {fold}, or than before" if fold else "before",
        probes=PROBES,
        factor=FACTOR,
    )
    left = [f"- **{row.name}**: {'; '.join(lines)}" for row in rows if (lines := complaints(row))]
    parts = [
        f"# {library}'s networks, folded",
        f"`{command}`; {versions}, Python {platform.python_version()}; "
        f"reparamkit {', '.join(sorted({row.commit for row in rows}))}; rows made {dates[0]} to {dates[-1]}.",
        reading,
        "## Summary",
        summary(rows),
        "## Counts",
        markdown([header(), *(cells(row) for row in rows)]),
        "## What is worse, or failed, and notes",
        "\n".join(left) or "nothing",
    ]
    return "\n\n".join(parts) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", choices=tuple(SOURCES), required=True)
    parser.add_argument("--model", action="append", default=[], metavar="NAME")
    parser.add_argument("--dynamic", choices=("no", "batch", "auto"), default="no", help="sizes kept free")
    parser.add_argument("-j", type=int, default=1, metavar="N", help="networks at a time")
    parser.add_argument("--seconds", type=float, default=120, help="time limit of one network")
    parser.add_argument("--memory", type=float, default=6, help="memory limit of one network, GiB")
    parser.add_argument("--results", type=Path, help="the JSON lines (default: in the user's cache)")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    return parser.parse_args()


if __name__ == "__main__":
    main()
