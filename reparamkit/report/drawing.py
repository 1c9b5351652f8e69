"""A picture of a network as SVG, laid out by Graphviz (the extra `html`: its wheels bring Graphviz along)."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from html import escape, unescape
from typing import Any

from reparamkit.errors import MissingExtra
from reparamkit.report.pages import style_sheet
from reparamkit.report.picture_plan import Box, Frame, Plan


def svg(plan: Plan, side: str, title: str) -> str:
    """The picture, its colours left to the style sheet `net.css`.

    Args:
        side: what the names of its parts begin with, so that several pictures fit on one page.
        title: what it is a picture of, for those who do not see it.

    Raises:
        MissingExtra: pygraphviz is not installed.
    """
    text = _laid_out(plan, side)
    drawing = text[text.index("<svg") :]
    drawing = re.sub(r"<!--.*?-->\n?", "", drawing, flags=re.S)
    drawing = re.sub(r' (font-family|xmlns:xlink)="[^"]*"', "", drawing)
    told = {f"{side}-{box.name}": _tooltip(box) for box in plan.boxes}
    told |= {f"cluster_{side}{number}": frame.title for number, frame in enumerate(plan.frames)}
    told[side] = title
    drawing = re.sub(
        r"<title>([^<]*)</title>\n?", lambda match: _title(told.get(unescape(match[1]), "")), drawing
    )
    drawing = re.sub(
        r'<svg width="([\d.]+)pt" height="([\d.]+)pt"',
        rf'<svg class="net" role="img" aria-label="{escape(title)}" width="\1" height="\2"',
        drawing,
        count=1,
    )
    return drawing.rstrip()


def _title(text: str) -> str:
    """What a browser shows of a part when it is pointed at; nothing of arrows."""
    return f"<title>{escape(text)}</title>\n" if text else ""


def alone(drawing: str) -> str:
    """The picture as a file of its own: with its colours, light or dark as the reader's system is."""
    head, mark, rest = drawing.partition(">")
    colours = (
        f".net {{ background: var(--paper); {style_sheet('colours_light.css')} }}\n"
        f"@media (prefers-color-scheme: dark) {{ .net {{ {style_sheet('colours_dark.css')} }} }}\n"
    )
    style = f"<style>\n{colours}{style_sheet('net.css')}</style>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}{mark}\n{style}{rest}\n'


def beside(drawings: Sequence[tuple[str, str]]) -> str:
    """Several pictures in one file, each under its title."""
    parts, left, height = [], 0.0, 0.0
    for title, drawing in drawings:
        wide, high = (float(n) for n in re.findall(r'(?:width|height)="([\d.]+)"', drawing)[:2])
        parts.append(
            f'<text x="{left + 8:.0f}" y="16" font-size="13" font-weight="bold">{escape(title)}</text>'
        )
        parts.append(drawing.replace("<svg ", f'<svg x="{left:.0f}" y="24" ', 1))
        left, height = left + wide + 24, max(height, high + 28)
    return alone(
        f'<svg class="net" xmlns="http://www.w3.org/2000/svg" width="{left:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {left:.0f} {height:.0f}">' + "".join(parts) + "</svg>"
    )


def require() -> None:
    """Raise `MissingExtra` if pygraphviz is not installed."""
    try:
        import pygraphviz  # noqa: F401
    except ImportError:
        raise MissingExtra("pygraphviz", "html", "a picture of a network") from None


def _laid_out(plan: Plan, side: str) -> str:
    require()
    import pygraphviz

    graph = pygraphviz.AGraph(name=side, directed=True, strict=False)
    graph.graph_attr.update(
        rankdir="TB", nodesep="0.12", ranksep="0.22", bgcolor="transparent", fontname="Helvetica",
        fontsize="10", margin="0", pad="0.1", labeljust="l", remincross="true", nslimit="4", nslimit1="4",
    )  # fmt: skip
    graph.node_attr.update(
        shape="box", style="rounded,filled", fontname="Helvetica", fontsize="10", margin="0.13,0.05",
        height="0.1", width="0.3", fillcolor="white",
    )  # fmt: skip
    graph.edge_attr.update(arrowsize="0.45", penwidth="0.8")
    frames: dict[tuple[str, ...], Any] = {(): graph}
    for number, frame in enumerate(plan.frames):
        parent = frames[frame.path[:-1]]
        frames[frame.path] = parent.add_subgraph(
            name=f"cluster_{side}{number}", **_frame(frame, side, number)
        )
    for box in plan.boxes:
        frames[box.frame].add_node(f"{side}-{box.name}", **_box(box, side))
    for tail, head in plan.arrows:
        graph.add_edge(f"{side}-{tail}", f"{side}-{head}")
    with _silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        drawn: bytes = graph.draw(format="svg", prog="dot")
    return drawn.decode()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what Graphviz's own libraries print of fonts, straight to the process's standard error."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _frame(frame: Frame, side: str, number: int) -> dict[str, str]:
    marks = " ".join([frame.kind, *(f"r{region}" for region in frame.regions)])
    return {
        "label": _plain(frame.title), "class": marks, "id": f"{side}-f{number}", "style": "rounded",
        "margin": "6" if frame.kind == "region" else "9",
    }  # fmt: skip


def _box(box: Box, side: str) -> dict[str, str]:
    marks = [box.kind, *(f"r{region}" for region in box.regions), *(["kept"] if box.kept else [])]
    return {
        "label": _plain("\n".join(box.lines)),
        "class": " ".join([*marks, *(["region"] if box.regions else [])]),
        "id": f"{side}-{box.name}",
    }


def _tooltip(box: Box) -> str:
    lines = []
    for call in box.calls[:12]:
        sizes = "×".join(map(str, call.shape))
        lines.append(" ".join(filter(None, [call.module or call.name, f"({call.operator})", sizes])))
    return "\n".join([*lines, *(["…"] if len(box.calls) > 12 else [])])


def _plain(text: str) -> str:
    """Text that Graphviz takes as it is: without escapes, entities, or markup, which begins with "<"."""
    plain = text.replace("&", "&amp;").replace("\\", "\\\\")
    return f" {plain}" if plain.startswith("<") else plain
