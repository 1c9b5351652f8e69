"""What `expand` did, for a terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from reparamkit.training.expand import ExpansionReport


def show_expansion(
    name: str, report: ExpansionReport, files: list[tuple[str, str]], console: Console
) -> None:
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


def expansion_as_dict(name: str, report: ExpansionReport, files: list[tuple[str, str]]) -> dict[str, Any]:
    """The same as plain JSON."""
    return {"name": name, **asdict(report), "files": [{"path": p, "verdict": said} for p, said in files]}
