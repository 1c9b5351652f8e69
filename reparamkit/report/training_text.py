"""Results of training and of validation, for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

_SHOWN = 10
_COLUMNS = ("name", "runner", "images", "top1", "top5", "loss", "calibration_error", "images_per_second")


class Difference(Protocol):
    """An image on which two networks decide differently."""

    @property
    def image(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def prediction(self) -> str: ...


class Row(Protocol):
    """Results of one network."""

    @property
    def name(self) -> str: ...
    @property
    def runner(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def top1(self) -> float: ...
    @property
    def top5(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def calibration_error(self) -> float: ...
    @property
    def images_per_second(self) -> float: ...
    @property
    def differing(self) -> Sequence[Difference]: ...


class Timing(Protocol):
    """Seconds of a call."""

    @property
    def median(self) -> float: ...
    @property
    def mean(self) -> float: ...


def show_validation(rows: Sequence[Row], notes: Sequence[str], console: Console) -> None:
    """A table, which predictions differ, and the notes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("network", overflow="fold")
    table.add_column("runs on")
    for title in ("images", "top-1", "top-5", "loss", "calibration", "images/s", "differ"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.runner,
            str(row.images),
            f"{row.top1:.2%}",
            f"{row.top5:.2%}",
            f"{row.loss:.4f}",
            f"{row.calibration_error:.4f}",
            f"{row.images_per_second:.0f}",
            str(len(row.differing)) if row is not rows[0] else "",
        )
    console.print(table)
    for row in rows[1:]:
        if row.differing:
            _show_differing(row, rows[0].name, console)
    if notes:
        console.print()
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def show_before_after(rows: Sequence[Row], latency: Sequence[Timing], console: Console) -> None:
    """Accuracy and latency of a network as trained and as folded."""
    before, after = rows
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("as trained", justify="right")
    table.add_column("folded", justify="right")
    table.add_column("", justify="right")
    table.add_row("top-1", f"{before.top1:.2%}", f"{after.top1:.2%}", _differing(after))
    table.add_row(
        "latency, median",
        f"{1e3 * latency[0].median:.3f} ms",
        f"{1e3 * latency[1].median:.3f} ms",
        f"{latency[0].median / latency[1].median:.2f} times as fast",
    )
    table.add_row("latency, mean", *(f"{1e3 * timing.mean:.3f} ms" for timing in latency))
    console.print(table)


def validation_csv(rows: Sequence[Row]) -> str:
    """One line a network, with the number of predictions that differ from the first one's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, "differ"])
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in _COLUMNS), len(row.differing)])
    return text.getvalue()


def _differing(row: Row) -> str:
    count = len(row.differing)
    return f"{count} of {row.images} predictions differ" if count else f"all {row.images} predictions agree"


def _show_differing(row: Row, reference: str, console: Console) -> None:
    console.print()
    console.print(Text(f"{row.name} and {reference} decide differently on {len(row.differing)} images:"))
    for one in row.differing[:_SHOWN]:
        console.print(
            Text(f"  {one.image}: {one.prediction}, not {one.reference} (the label is {one.label})"),
            soft_wrap=True,
        )
    if len(row.differing) > _SHOWN:
        console.print(Text(f"  and {len(row.differing) - _SHOWN} more; --json has all of them"))
