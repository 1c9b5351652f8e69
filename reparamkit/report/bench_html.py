"""The figures of `reparamkit bench` as one page: how many times as fast first, then bars, then the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reparamkit.report.pages import page
from reparamkit.report.words import size_words

_WORDS = {"original": "as it came", "onnxsim": "after onnxsim", "hand": "by its own fold", "folded": "folded"}
_WIDTH, _ROW, _LEFT, _RIGHT = 900, 22, 210, 150


def bench_html(document: Mapping[str, Any]) -> str:
    """The page of what `bench_document` gives."""
    networks = [
        {
            "name": name,
            "inputs": shapes,
            "tiles": _tiles(rows := [row for row in document["rows"] if row["network"] == name]),
            "chart": _bars(rows, name),
            "rows": [_cells(row) for row in rows],
            "notes": [
                f"{row['backend']}, {form_words(row['form'])}: {row['note']}" for row in rows if row["note"]
            ],
        }
        for name, shapes in document["inputs"].items()
    ]
    return page(
        "bench.html",
        title=f"reparamkit bench: {', '.join(document['inputs'])}",
        kind="bench",
        networks=networks,
        document=document,
    )


def form_words(form: str) -> str:
    """What a form of a network is called."""
    return _WORDS.get(form, form)


def folded_and_original(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """The row of the fold and the time of the network as it came, of each back end that has both."""
    original = {row["backend"]: row["median_ms"] for row in rows if row["form"] == "original"}
    return [
        (row, original[row["backend"]])
        for row in rows
        if row["form"] == "folded" and row["median_ms"] and original.get(row["backend"])
    ]


def _tiles(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    tiles = []
    for row, before in folded_and_original(rows):
        ratio = row["ratios"]["original"]
        tiles.append(
            {
                "what": f"latency, {row['backend']}",
                "ratio": f"{1 / ratio['median']:.2f} × as fast",
                "span": f"{1 / ratio['high']:.2f} to {1 / ratio['low']:.2f}; "
                f"{_ms(before)} → {_ms(row['median_ms'])}",
            }
        )
    return tiles


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _bars(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """A bar for each form, back end by back end, with its quartiles."""
    timed = [row for row in rows if row["median_ms"] is not None]
    if not timed:
        return ""
    longest = max(row["quartiles_ms"][1] for row in timed)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest if longest else 1.0
    title = f"Median times of {name}"
    parts, y, before = [], 6.0, ""
    for row in timed:
        if row["backend"] != before:
            before = row["backend"]
            y += 8
            parts.append(f'<text class="axis" x="0" y="{y + 14:.1f}">{escape(before)}</text>')
        length = scale * row["median_ms"]
        low, high = (_LEFT + scale * each for each in row["quartiles_ms"])
        middle = y + _ROW / 2
        parts.append(
            f'<text class="axis" text-anchor="end" x="{_LEFT - 8}" y="{middle + 4:.1f}">'
            f"{escape(form_words(row['form']))}</text>"
            f'<rect class="bar-{escape(row["form"])}" x="{_LEFT}" y="{y + 3:.1f}" width="{length:.1f}" '
            f'height="{_ROW - 6}"><title>{_ms(row["median_ms"])}</title></rect>'
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
            f'<text class="axis" x="{max(high, _LEFT + length) + 8:.1f}" y="{middle + 4:.1f}">'
            f"{_ms(row['median_ms'])}</text>"
        )
        y += _ROW
    height = math.ceil(y + 8)
    return (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    timed = row["median_ms"] is not None
    low, high = row["quartiles_ms"] if timed else (None, None)
    speeds = {
        other: f"{1 / ratio['median']:.2f} ({1 / ratio['high']:.2f} to {1 / ratio['low']:.2f})"
        for other, ratio in row["ratios"].items()
    }
    return {
        "backend": row["backend"],
        "form": form_words(row["form"]),
        "median": f"{row['median_ms']:.3f}" if timed else "",
        "quartiles": f"{low:.3f} to {high:.3f}" if timed else "",
        "original": speeds.get("original", ""),
        "hand": speeds.get("hand", ""),
        "floor": "" if row["over_floor"] is None else f"{row['over_floor']:.2f}",
        "macs": "" if row["macs"] is None else size_words(row["macs"]),
        "parameters": "" if row["parameters"] is None else size_words(row["parameters"]),
        "memory": _bytes(row["peak_memory_bytes"]),
        "file": _bytes(row["file_bytes"]),
    }


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{size_words(count)}B"
