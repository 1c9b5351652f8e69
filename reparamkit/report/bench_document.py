"""The rows of `reparamkit bench` as JSON, CSV and for a terminal.

`schemas/bench-1.schema.json` describes the document for others. All times are milliseconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMAT = "reparamkit-bench-1"
_COLUMNS = (
    *("network", "backend", "form", "median_ms", "q1_ms", "q3_ms"),
    *("ratio_to_original", "ratio_to_onnxsim", "ratio_to_hand", "floor_ms", "over_floor"),
    *("macs", "parameters", "peak_memory_bytes", "file_bytes", "note"),
)
_OPERATORS_TOLD = 3


class Timing(Protocol):
    """Seconds of a call."""

    @property
    def median(self) -> float: ...
    @property
    def quartiles(self) -> tuple[float, float]: ...


class Ratio(Protocol):
    """How many times as long, with its confidence interval."""

    @property
    def median(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Row(Protocol):
    """One form of a network on one back end."""

    @property
    def network(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def form(self) -> str: ...
    @property
    def timing(self) -> Timing | None: ...
    @property
    def ratios(self) -> Mapping[str, Ratio]: ...
    @property
    def floor(self) -> float | None: ...
    @property
    def over_floor(self) -> float | None: ...
    @property
    def rest(self) -> Mapping[str, float]: ...
    @property
    def macs(self) -> int | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def peak_memory(self) -> int | None: ...
    @property
    def file_bytes(self) -> int | None: ...
    @property
    def note(self) -> str: ...


class Bench(Protocol):
    """All rows, and where and how they were measured."""

    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def machine(self) -> Mapping[str, str]: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    @property
    def threads(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...


def bench_document(bench: Bench) -> dict[str, Any]:
    """Everything, ready for `json.dumps`."""
    return {
        "format": FORMAT,
        "machine": dict(bench.machine),
        "versions": dict(bench.versions),
        "threads": bench.threads,
        "rounds": bench.rounds,
        "inputs": dict(bench.inputs),
        "rows": [_entry(row) for row in bench.rows],
    }


def _entry(row: Row) -> dict[str, Any]:
    timing = row.timing
    return {
        "network": row.network,
        "backend": row.backend,
        "form": row.form,
        "median_ms": None if timing is None else 1e3 * timing.median,
        "quartiles_ms": None if timing is None else [1e3 * each for each in timing.quartiles],
        "ratios": {
            other: {"median": each.median, "low": each.low, "high": each.high}
            for other, each in row.ratios.items()
        },
        "floor_ms": None if row.floor is None else 1e3 * row.floor,
        "over_floor": row.over_floor,
        "rest_ms": {operator: 1e3 * seconds for operator, seconds in row.rest.items()},
        "macs": row.macs,
        "parameters": row.parameters,
        "peak_memory_bytes": row.peak_memory,
        "file_bytes": row.file_bytes,
        "note": row.note,
    }


def bench_csv(bench: Bench) -> str:
    """One line for each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in bench.rows:
        entry = _entry(row)
        first, third = entry["quartiles_ms"] or (None, None)
        ratios = {f"ratio_to_{other}": each["median"] for other, each in entry["ratios"].items()}
        writer.writerow({**entry, "q1_ms": first, "q3_ms": third, **ratios})
    return text.getvalue()


def show_bench(bench: Bench, console: Console) -> None:
    """A table for each network, and what the rows note."""
    for network, shapes in bench.inputs.items():
        rows = [row for row in bench.rows if row.network == network]
        console.print(Text(f"{network}, {shapes}", style="bold"))
        console.print(_table(rows))
        for row in rows:
            for line in notes_of(row):
                console.print(Text(f"{row.backend}, {row.form}: {line}"), soft_wrap=True)
        console.print()
    machine = ", ".join(bench.machine.values())
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    rounds = f"medians of {bench.rounds} rounds in turn"
    threads = "1 thread" if bench.threads == 1 else f"{bench.threads} threads"
    console.print(Text(f"{machine}; {versions}; {threads}, {rounds}"), soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("on", "form"):
        table.add_column(title)
    for title in ("median ms", "quartiles", "as fast as it came", "as fast as by hand", "times the floor"):
        table.add_column(title, justify="right")
    for title in ("MACs", "file"):
        table.add_column(title, justify="right")
    before = ""
    for row in rows:
        cells = [row.backend if row.backend != before else "", row.form]
        before = row.backend
        if row.timing is None:
            table.add_row(*cells, "-")
            continue
        low, high = row.timing.quartiles
        cells += [f"{1e3 * row.timing.median:.3f}", f"{1e3 * low:.3f} to {1e3 * high:.3f}"]
        cells += [times(row.ratios[other]) if other in row.ratios else "" for other in ("original", "hand")]
        cells.append("" if row.over_floor is None else f"{row.over_floor:.2f}")
        cells.append("" if row.macs is None else f"{row.macs / 1e6:,.1f} M")
        cells.append("" if row.file_bytes is None else f"{row.file_bytes / 1e6:.1f} MB")
        table.add_row(*cells)
    return table


def times(ratio: Ratio) -> str:
    """How many times as fast, which is the ratio of the times turned over."""
    return f"{1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f})"


def notes_of(row: Row) -> list[str]:
    """What a reader must know of a row, and where its time goes beside the layers."""
    notes = [row.note] if row.note else []
    if row.rest:
        longest = sorted(row.rest.items(), key=lambda item: -item[1])[:_OPERATORS_TOLD]
        told = ", ".join(f"{operator} {1e3 * seconds:.2f} ms" for operator, seconds in longest)
        notes.append(f"beside its layers, most of the time goes to {told}")
    return notes
