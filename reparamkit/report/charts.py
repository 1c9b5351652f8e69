"""Charts of errors as SVG: one point for each place along a network, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 26


@dataclass(frozen=True)
class Point:
    """One place: what it is called, its error, whether that is good, and the names of its class."""

    label: str
    error: float
    good: bool
    marks: str = ""


def error_chart(
    points: Sequence[Point],
    title: str,
    *,
    bar: float | None = None,
    line: Sequence[float] = (),
    below: str = "",
    along: bool = True,
) -> str:
    """The chart.

    Args:
        bar: an error that none may be above, drawn as a line across.
        line: an allowed error of each place.
        below: what the places are, to be written under the axis.
        along: whether they follow each other towards the output.
    """
    known = [v for v in (*(p.error for p in points), *line, bar) if v is not None and 0 < v < math.inf]
    low = math.floor(math.log10(min(known, default=1e-17)))
    high = max(low + 1, math.ceil(math.log10(max(known, default=1.0))))

    def height(value: float) -> float:
        power = low if value <= 0 else min(high, max(low, math.log10(value))) if value < math.inf else high
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - power) / (high - low)

    def place(index: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (index + 0.5) / max(1, len(points))

    parts = [
        f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f"<title>{escape(title)}</title>",
    ]
    step = max(1, math.ceil((high - low) / 7))
    for power in range(low, high + 1, step):
        y = height(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"1e{power}", end=True))
    if bar is not None:
        y = height(bar)
        parts.append(f'<line class="bar" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_WIDTH - _RIGHT, y - 6, f"the bar: {bar:.0e}", "bar", end=True))
    if line:
        ways = " ".join(f"{place(i):.1f},{height(value):.1f}" for i, value in enumerate(line))
        parts.append(f'<polyline class="bar" points="{ways}"/>')
    radius = 4.5 if len(points) <= 80 else 3
    for index, point in enumerate(points):
        kind = " ".join(filter(None, ["point", "good" if point.good else "bad", point.marks]))
        parts.append(
            f'<circle class="{escape(kind)}" r="{radius}" cx="{place(index):.1f}" '
            f'cy="{height(point.error):.1f}">'
            f"<title>{escape(point.label)}: {point.error:.1e}</title></circle>"
        )
    parts.append(_text(_LEFT, _HEIGHT - 6, below))
    if along:
        parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 6, "→ towards the output", end=True))
    return "".join([*parts, "</svg>"])


def _text(x: float, y: float, text: str, kind: str = "axis", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text class="{kind}"{anchor} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
