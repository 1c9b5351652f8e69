"""The findings for a terminal: what there was, what folded, what did not and why, and how equal it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from reparamkit.report.findings import Report

_FEW = 8


def show(report: Report, console: Console) -> None:
    """Print the whole report."""
    for part in rendered(report):
        console.print(part, soft_wrap=isinstance(part, Text))


def rendered(report: Report) -> list[RenderableType]:
    """The report, piece by piece."""
    parts: list[RenderableType] = [_heading(report), Text(), _counts(report), Text()]
    parts += [*_folds(report), Text()] if report.folds else [Text("Nothing folds."), Text()]
    if report.undone:
        parts += [*_undone(report), Text()]
    if report.refusals:
        parts += [*_refusals(report), Text()]
    if report.parts:
        parts += [*_parts(report), Text()]
    parts += [Text(f"note: {note}") for note in report.notes]
    if report.equivalence is not None:
        parts.append(Text(f"whole network: {report.equivalence.summary()}"))
    for file in report.files:
        counts = ", ".join(f"{n} {op}" for op, n in file.operators.most_common())
        parts += [Text(), Text(f"{file.path}: {file.equivalence.summary()}"), Text(f"  holds {counts}")]
        parts += [Text(f"  note: {note}") for note in file.notes]
    return parts


def _heading(report: Report) -> Text:
    return Text.assemble((report.name, "bold"), f"  ({report.sizes})")


def _counts(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("operator")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for operator in dict.fromkeys([*report.before, *report.after]):
        before, after = report.before.get(operator, 0), report.after.get(operator, 0)
        table.add_row(operator, str(before), str(after), style="" if before == after else "bold")
    return table


def _folds(report: Report) -> list[RenderableType]:
    worst = max(f.error for f in report.folds)
    title = (
        f"{_number(len(report.folds), 'fold')}, each proven in float64 (largest relative error {worst:.0e})"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("where", overflow="fold")
    table.add_column("before", overflow="fold")
    table.add_column("after", overflow="fold")
    for fold in report.folds:
        before = " + ".join(f"{n} {_short(op)}" for op, n in fold.operators.items())
        after = "\n".join(f"{path}: {what}" for path, what in fold.layers.items()) or "(nothing)"
        if fold.captured_only:
            after += "\n(proven at the captured size only)"
        table.add_row(fold.where or "(the network)", before, after)
    return [Text(title, "bold"), table]


def _refusals(report: Report) -> list[RenderableType]:
    groups: dict[tuple[str, str], list[int]] = {}
    for i, refusal in enumerate(report.refusals):
        groups.setdefault((refusal.operator, re.sub(r"'[^']*'|[0-9.]+", "", refusal.reason)), []).append(i)
    stay = "stays" if len(report.refusals) == 1 else "stay"
    title = f"{_number(len(report.refusals), 'operator')} that might be expected to fold and {stay}"
    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("where", overflow="fold")
    table.add_column("why", overflow="fold")
    for members in groups.values():
        first = report.refusals[members[0]]
        places = [report.refusals[i].where or "(the network)" for i in members]
        table.add_row(f"{len(members)} {_short(first.operator)}", _places(places), first.reason)
    return [Text(title, "bold"), table]


def _undone(report: Report) -> list[RenderableType]:
    count = len(report.undone)
    own = "its own check and was" if count == 1 else "their own check and were"
    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("where", overflow="fold")
    table.add_column("why", overflow="fold")
    for one in report.undone:
        table.add_row(f"{_short(one.operator)} {one.node}", one.where or "(the network)", one.reason)
    return [Text(f"{_number(count, 'fold')} failed {own} taken back", "bold red"), table]


def _parts(report: Report) -> list[RenderableType]:
    folded = sum(part.folded for part in report.parts)
    title = f"{_number(folded, 'part')} of the network folded, {len(report.parts) - folded} left as they were"
    table = Table(box=None, pad_edge=False)
    table.add_column("part", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("", overflow="fold")
    for part in report.parts:
        words = "; ".join(filter(None, [part.sizes, part.reason])) if part.folded else part.reason
        table.add_row(part.where, "folded" if part.folded else "left", words)
    return [Text(title, "bold"), table]


def _places(places: Sequence[str]) -> str:
    shown = list(dict.fromkeys(places))
    if len(shown) <= _FEW:
        return ", ".join(shown)
    return ", ".join(shown[:_FEW]) + f" and {len(shown) - _FEW} more"


def _short(operator: str) -> str:
    parts = operator.split(".")
    return parts[1] if len(parts) > 1 else operator


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
