"""What `expand` did, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Expansion(Protocol):
    """A convolution that became a block."""

    @property
    def where(self) -> str:
        """Its name in the network."""

    @property
    def also(self) -> tuple[str, ...]:
        """Further names of the same module."""

    @property
    def layer(self) -> str:
        """What it was."""

    @property
    def branches(self) -> tuple[str, ...]:
        """The names of the branches."""


class LeftAlone(Protocol):
    """A convolution that stays as it was."""

    @property
    def where(self) -> str:
        """Its name in the network."""

    @property
    def layer(self) -> str:
        """What it is."""

    @property
    def reason(self) -> str:
        """Why it stays."""


class Expanded(Protocol):
    """All that `expand` did."""

    @property
    def kind(self) -> str:
        """What the blocks are."""

    @property
    def expanded(self) -> Sequence[Expansion]:
        """Convolutions that became blocks."""

    @property
    def left(self) -> Sequence[LeftAlone]:
        """Those that did not."""

    @property
    def error(self) -> float:
        """The largest relative error in float64."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What else the caller should know."""


def show_expansion(name: str, report: Expanded, files: list[tuple[str, str]], console: Console) -> None:
    """Print the report. `files` are paths, and what is said of each."""
    console.print(Text.assemble((name, "bold"), f"  ({report.kind})"), soft_wrap=True)
    console.print()
    count = len(report.expanded)
    blocks = "1 convolution became a block" if count == 1 else f"{count} convolutions became blocks"
    same = f"the same function in float64 (largest relative error {report.error:.0e})"
    console.print(Text(f"{blocks}; {same}", "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("where", "before", "branches"):
        table.add_column(heading, overflow="fold")
    for one in report.expanded:
        where = ", ".join((one.where or "(the network)", *one.also))
        table.add_row(where, one.layer, " + ".join(one.branches))
    console.print(table)
    console.print()
    if report.left:
        stays = "1 convolution stays" if len(report.left) == 1 else f"{len(report.left)} convolutions stay"
        console.print(Text(stays, "bold"))
        table = Table(box=None, pad_edge=False)
        for heading in ("where", "what", "why"):
            table.add_column(heading, overflow="fold")
        for left in report.left:
            table.add_row(left.where or "(the network)", left.layer, left.reason)
        console.print(table)
        console.print()
    for note in report.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for path, said in files:
        console.print(Text(f"{path}: {said}"), soft_wrap=True)


def expansion_as_dict(name: str, report: Expanded, files: list[tuple[str, str]]) -> dict[str, Any]:
    """The same as plain JSON."""
    return {
        "name": name,
        "kind": report.kind,
        "expanded": [
            {"where": one.where, "also": one.also, "layer": one.layer, "branches": one.branches}
            for one in report.expanded
        ],
        "left": [{"where": one.where, "layer": one.layer, "reason": one.reason} for one in report.left],
        "error": report.error,
        "notes": report.notes,
        "files": [{"path": path, "verdict": said} for path, said in files],
    }
