"""The rows as a plain table for a terminal and as a page of Markdown."""

from __future__ import annotations

import math
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from tests.sweeps.counting import COLUMNS
from tests.sweeps.measure import FACTOR, PROBES, Row, last_line
from tests.sweeps.networks import Job

_READING = """\
Per family the smallest model by parameters, with random weights and statistics, captured {sizes}.
Operators are those of a fresh `torch.export` graph: before→after, and in brackets after {library}'s own
fold where the network has one; add counts sub, mul counts div. e0 and e1 are the float32 errors of the
original and of the folded network against the original's float64 run, relative to the output's scale, the
worst of {probes} normal inputs; ok is e1 ≤ {factor:.0f}·e0 + a few ulp. \\* has no float64 run: float32
against float32. e64 is the difference of a fold in float64, asked for where e0 is large. conv-BN left
counts the batch norms that alone read a convolution or linear layer."""
_AT_ONES = """\
ones: at sizes with ones in them (the batch, each free side alone, all sides, all that is free), with a
batch as large as the channels, and with sides that are equal or not: how many the folded network answers like
the original (by the same bar) / how many it refuses in words. What the original does not take is left out."""
_FIXED = "at fixed sizes"
_HEADINGS = {"batch_norm": "BN", "other_norm": "other norms"}
_SHORT = {
    "add: a sum of values with different sources (…): each side folds on its own": "residual sums",
    "mul: it multiplies two values that both depend on the network's input": "gates",
}


def header() -> list[str]:
    """The columns of `cells`."""
    counted = [_HEADINGS.get(c, c) for c in COLUMNS]
    return [
        *("family", "model", "input", "verdict", "e0", "e1", *counted, "conv-BN left", "proofs failed"),
        *("ones", "capture s", "fold s", "made"),
    ]


def cells(row: Row) -> list[str]:
    """One row: before→after, and what the library's own fold leaves in brackets."""
    counted = [_change(row, column) for column in COLUMNS]
    left = str(len(row.pairs_left)) if row.after else ""
    e0 = row.e0 if row.oracle == "float64" else math.nan
    return [
        *(row.family, row.name, row.size, verdict(row), _number(e0), _number(row.e1), *counted, left),
        *(str(row.unproven) if row.after else "", _ones(row)),
        *(_seconds(row, "capture"), _seconds(row, "fold"), row.made[5:16].replace("T", " ")),
    ]


def verdict(row: Row) -> str:
    """The status: a star where float32 was compared with float32, e64 where a float64 fold was asked for."""
    if row.status not in {"ok", "rounding", "inequivalent"}:
        return row.status if row.status == "timeout" else f"{row.status} ({row.stage})"
    mark = "*" if row.oracle != "float64" else ""
    return row.status + mark + (f" (e64 {row.e64:.0e})" if not math.isnan(row.e64) else "")


def _sizes(rows: Sequence[Row]) -> str:
    return (
        "at fixed sizes"
        if all(r.captured in ("", "fixed sizes") for r in rows)
        else "with free sizes where they can be"
    )


def _change(row: Row, column: str) -> str:
    if not row.after:
        return str(row.before.get(column, ""))
    before, after = row.before[column], row.after[column]
    change = str(after) if before == after else f"{before}→{after}"
    return f"{change} ({row.theirs[column]})" if row.theirs and (before or after) else change


def _ones(row: Row) -> str:
    """At sizes with ones, and with sides alike or not: compared/refused; what the original takes."""
    met = [what for what in row.special.values() if what != "not taken"]
    refused = sum(what.startswith("refused") for what in met)
    return f"{len(met) - refused}/{refused}" if row.special else ""


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"


def _seconds(row: Row, what: str) -> str:
    return f"{row.seconds[what]:.2f}" if what in row.seconds else ""


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, the first line its header."""
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([first, "|" + "---|" * len(lines[0]), *rest])


def page(library: str, version: str, jobs: Iterable[Job], rows: dict[str, Row], command: str) -> str:
    """The whole page: how it was made, the summary, the table, what is left and why."""
    found = [rows[job.name] for job in jobs if job.name in rows]
    commits = sorted({row.commit for row in found})
    dates = sorted(row.made for row in found)
    table = [header(), *(cells(row) for row in found)]
    if _sizes(found) == _FIXED:
        ones = table[0].index("ones")
        table = [[*line[:ones], *line[ones + 1 :]] for line in table]
    parts = [
        f"# Every family of {library}, folded",
        f"`{command}`; {library} {version}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"reparamkit {', '.join(commits)}; rows made {dates[0]} to {dates[-1]}.",
        _READING.format(library=library, probes=PROBES, factor=FACTOR, sizes=_sizes(found)),
        "## Summary",
        summary(found),
        "## Counts",
        markdown(table),
        "## What is left, and why",
        "\n".join(f"- {line}" for row in found for line in left(row)),
    ]
    if _sizes(found) != _FIXED:
        said = "at the other size: the largest difference from the original, of the output's scale"
        lines = (f"- {row.family}: {'; '.join([row.captured, *row.notes, *_refused(row)])}" for row in found)
        parts += ["## Sizes that are free", _AT_ONES, f"({said})", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _refused(row: Row) -> list[str]:
    """The special sizes that are refused, by name."""
    names = [name for name, what in row.special.items() if what.startswith("refused")]
    return [f"refused: {', '.join(names)}"] if names else []


def summary(rows: Sequence[Row]) -> str:
    """How many are ok, inequivalent, or raised; who they are; how many norms are left."""
    by: dict[str, list[str]] = {}
    for row in rows:
        by.setdefault(row.status, []).append(row.family)
    lines = [
        f"- {len(names)} {status}" + ("" if status == "ok" else f": {', '.join(names)}")
        for status, names in sorted(by.items(), key=lambda entry: -len(entry[1]))
    ]
    lines += [f"- {row.family}: {alarm}" for row in rows for alarm in row.alarms]
    special = [what.split(":")[0] for row in rows for what in row.special.values()]
    if special:
        took = sum(what != "not taken" for what in special)
        lines.append(f"- sizes with ones: {took} that the original takes, {special.count('refused')} refused")
    before, after = Counter[str](), Counter[str]()
    for row in rows:
        if row.after:
            before.update(row.before)
            after.update(row.after)
    lines.append("- in all: " + ", ".join(f"{_HEADINGS.get(c, c)} {before[c]}→{after[c]}" for c in COLUMNS))
    pairs = [f"{row.family} {len(row.pairs_left)}" for row in rows if row.pairs_left]
    lines.append(f"- conv-BN left: {', '.join(pairs) or 'none'}")
    more = [row.family for row in rows if row.after and row.after["conv"] > row.before["conv"]]
    lines.append(f"- more convolutions than before: {', '.join(more) or 'none'}")
    single = [f"{row.family} {row.captured_only}" for row in rows if row.captured_only]
    folds, fewer = sum(len(row.folds) for row in rows), sum(row.captured_only for row in rows)
    lines.append(
        f"- {folds - fewer} of {folds} folds proven at other sizes than the captured one; at that alone: "
        f"{', '.join(single) or 'none'}"
    )
    unexplained = [f"{row.family} {', '.join(row.unexplained)}" for row in rows if row.unexplained]
    count = sum(len(row.unexplained) for row in rows)
    lines.append(f"- candidates without a reason: {count}" + "".join(f"; {each}" for each in unexplained))
    gone = [f"{row.family} {name}" for row in rows for name in row.gone]
    lines.append(
        f"- refusals that name an operator that is gone: {len(gone)}" + "".join(f"; {g}" for g in gone)
    )
    worse = [r.family for r in rows if r.theirs and any(r.after[c] > r.theirs[c] for c in COLUMNS[:-1])]
    lines.append(
        f"- some operator more often than after the library's own fold: {', '.join(worse) or 'none'}"
    )
    return "\n".join(lines)


def left(row: Row) -> list[str]:
    """What stays in one network: norms first, then the reasons, stock reasons in two words."""
    if not row.after:
        return [f"**{row.family}** ({row.name}): {row.status} at {row.stage}: {last_line(row.error)}"]
    reasons = sorted(
        row.refusals.items(), key=lambda entry: (not entry[0].startswith("batch_norm"), -entry[1])
    )
    told = sum(n for reason, n in reasons if reason.startswith("batch_norm"))
    parts = [f"{n} {_SHORT.get(reason, reason)}" for reason, n in reasons]
    if row.after["batch_norm"] > told:
        parts.insert(
            0, f"{row.after['batch_norm'] - told} batch norms WITHOUT A REASON ({row.norms_left[0]} …)"
        )
    if row.pairs_left:
        parts.insert(0, f"conv-BN left at {', '.join(row.pairs_left[:3])}")
    parts = [*(alarm.upper() for alarm in row.alarms), *parts, *row.notes]
    if not parts:
        return []
    return [f"**{row.family}** ({row.name}), BN {row.after['batch_norm']}: " + "; ".join(parts)]


def say(text: str) -> None:
    """At once, also into a log file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
