"""The findings for a terminal: what there was, what folded, what did not and why, and how equal it is.

What is equal but for its place is one line with a count. The report has sixty lines at most, however large
the network; `everything` prints it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from reparamkit.report.alike import Alike, alike_folds, alike_refusals, layer_kind
from reparamkit.report.findings import Report
from reparamkit.report.words import counted_words, number, places_words, ratio_words, short, size_words

LINES = 60
_FEW = 8


@dataclass(frozen=True)
class _Limits:
    """How many rows each list has at most."""

    operators: int
    folds: int
    refusals: int
    others: int
    sizes: bool = True
    """Whether folds into layers of other sizes are listed apart."""


_SHORTER = (
    _Limits(12, 30, 12, 12),
    _Limits(8, 30, 8, 8),
    _Limits(8, 20, 6, 6),
    _Limits(8, 30, 6, 6, sizes=False),
    _Limits(8, 12, 6, 6, sizes=False),
    _Limits(6, 8, 4, 4, sizes=False),
    _Limits(5, 5, 3, 3, sizes=False),
    _Limits(4, 3, 2, 2, sizes=False),
    _Limits(3, 2, 1, 1, sizes=False),
)


def show(report: Report, console: Console, *, everything: bool = False) -> None:
    """Print the report."""
    parts = rendered(report, everything=True) if everything else _short_enough(report, console)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def _short_enough(report: Report, console: Console) -> list[RenderableType]:
    for limits in _SHORTER:
        parts = rendered(report, limits=limits)
        fits = sum(_height(part, console) for part in parts) <= LINES
        kinds = len(alike_folds(report.folds, sizes=limits.sizes))
        if fits and (kinds <= limits.folds or not limits.sizes):
            break
    return parts


def _height(part: RenderableType, console: Console) -> int:
    if isinstance(part, Text):
        return sum(max(1, -(-len(line) // console.width)) for line in part.plain.split("\n"))
    return len(console.render_lines(part, pad=False))


def rendered(
    report: Report, *, everything: bool = False, limits: _Limits = _SHORTER[0]
) -> list[RenderableType]:
    """The report, piece by piece."""
    if everything:
        most = max(len(report.folds), len(report.refusals), len(report.before) + len(report.after), 1)
        limits = _Limits(most, most, most, max(len(report.parts), len(report.undone), len(report.notes), 1))
    parts: list[RenderableType] = [_heading(report), Text(), _counts(report, limits.operators), Text()]
    parts += [*_folds(report, limits, everything=everything), Text()] if report.folds else []
    if not report.folds:
        parts += [Text("Nothing folds."), Text()]
    if report.undone:
        parts += [*_undone(report, limits.others), Text()]
    if report.refusals:
        parts += [*_refusals(report, limits.refusals, everything=everything), Text()]
    if report.parts:
        parts += [*_parts(report, limits.others), Text()]
    parts += [Text(f"note: {note}") for note in report.notes[: limits.others]]
    parts += _more(len(report.notes) - limits.others, "note")
    if report.equivalence is not None:
        parts.append(Text(f"whole network: {report.equivalence.summary()}"))
    for file in report.files:
        counts = ", ".join(f"{n} {op}" for op, n in file.operators.most_common())
        parts += [Text(), Text(f"{file.path}: {file.equivalence.summary()}"), Text(f"  holds {counts}")]
        parts += [Text(f"  note: {note}") for note in file.notes]
    return parts


def _heading(report: Report) -> Text:
    return Text.assemble((report.name, "bold"), f"  ({report.sizes})")


def _counts(report: Report, most: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("operator")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if report.outlines is not None:
        table.add_column("", justify="right")
        total = sum(report.before.values()), sum(report.after.values())
        macs, parameters = zip(*((one.macs, one.parameters) for one in report.outlines), strict=True)
        for what, pair in (("all", total), ("multiply-accumulates", macs), ("parameters", parameters)):
            table.add_row(what, *map(size_words, pair), ratio_words(*pair), style="bold")
    names = list(dict.fromkeys([*report.before, *report.after]))
    rows = [(name, report.before.get(name, 0), report.after.get(name, 0)) for name in names]
    shown = rows if len(rows) <= most else _most_changed(rows, most)
    for name, before, after in shown:
        table.add_row(name, str(before), str(after), style="" if before == after else "bold")
    left = [row for row in rows if row not in shown]
    if left:
        before, after = sum(row[1] for row in left), sum(row[2] for row in left)
        table.add_row(f"{len(left)} other kinds", str(before), str(after))
    return table


def _most_changed(rows: Sequence[tuple[str, int, int]], most: int) -> list[tuple[str, int, int]]:
    """Those of which most came or went, in the order of the rows."""
    chosen = sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:most]
    return [row for row in rows if row in chosen]


def _folds(report: Report, limits: _Limits, *, everything: bool) -> list[RenderableType]:
    worst = max(f.error for f in report.folds)
    title = (
        f"{number(len(report.folds), 'fold')}, each proven in float64 (largest relative error {worst:.0e})"
    )
    groups, most = alike_folds(report.folds, apart=everything, sizes=limits.sizes), limits.folds
    several = any(group.count > 1 for group in groups)
    table = Table(box=None, pad_edge=False)
    table.add_column("where", overflow="fold")
    if several:
        table.add_column("", justify="right", no_wrap=True)
    table.add_column("before", overflow="fold")
    table.add_column("after", overflow="fold")
    for group in groups[:most]:
        fold = group.first
        after = "\n".join(_layers(report, group)) or "(nothing)"
        if fold.captured_only:
            after += "\n(proven at the captured size only)"
        where = places_words([report.folds[member].where for member in group.members])
        times = [f"{group.count} ×" if group.count > 1 else ""] if several else []
        table.add_row(where, *times, counted_words(fold.operators), after)
    return [Text(title, "bold"), table, *_more(len(groups) - most, "kind of fold", "kinds of folds")]


def _layers(report: Report, group: Alike) -> list[str]:
    """What the folds of a group became."""
    if group.count == 1:
        return [f"{path}: {what}" for path, what in group.first.layers.items()]
    layers = zip(*(report.folds[member].layers.values() for member in group.members), strict=True)
    return [same.pop() if len(same := set(kinds)) == 1 else layer_kind(kinds[0]) for kinds in layers]


def _refusals(report: Report, most: int, *, everything: bool) -> list[RenderableType]:
    stay = "stays" if len(report.refusals) == 1 else "stay"
    title = f"{number(len(report.refusals), 'operator')} that might be expected to fold and {stay}"
    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("where", overflow="fold")
    table.add_column("why", overflow="fold")
    groups = alike_refusals(report.refusals)
    for group in groups[:most]:
        places = [report.refusals[member].where or "(the network)" for member in group.members]
        shown = _places(places, len(places) if everything else _FEW)
        table.add_row(f"{group.count} {short(group.first.operator)}", shown, group.first.reason)
    return [Text(title, "bold"), table, *_more(len(groups) - most, "reason")]


def _undone(report: Report, most: int) -> list[RenderableType]:
    count = len(report.undone)
    own = "its own check and was" if count == 1 else "their own check and were"
    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("where", overflow="fold")
    table.add_column("why", overflow="fold")
    for one in report.undone[:most]:
        table.add_row(f"{short(one.operator)} {one.node}", one.where or "(the network)", one.reason)
    title = Text(f"{number(count, 'fold')} failed {own} taken back", "bold red")
    return [title, table, *_more(count - most, "fold")]


def _parts(report: Report, most: int) -> list[RenderableType]:
    folded = sum(part.folded for part in report.parts)
    title = f"{number(folded, 'part')} of the network folded, {len(report.parts) - folded} left as they were"
    table = Table(box=None, pad_edge=False)
    table.add_column("part", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("", overflow="fold")
    for part in report.parts[:most]:
        words = "; ".join(filter(None, [part.sizes, part.reason])) if part.folded else part.reason
        table.add_row(part.where, "folded" if part.folded else "left", words)
    return [Text(title, "bold"), table, *_more(len(report.parts) - most, "part")]


def _more(count: int, what: str, several: str = "") -> list[RenderableType]:
    """What was left out, and how to see it."""
    if count <= 0:
        return []
    return [Text(f"… and {count} more {what if count == 1 else several or f'{what}s'}: --all")]


def _places(places: Sequence[str], most: int) -> str:
    shown = list(dict.fromkeys(places))
    if len(shown) <= most:
        return ", ".join(shown)
    return ", ".join(shown[:most]) + f" and {len(shown) - most} more"
