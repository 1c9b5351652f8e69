"""The findings of a fold as one page: the verdict, what changed, the network drawn, and the lists."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from reparamkit.errors import MissingExtra
from reparamkit.report import drawing
from reparamkit.report.charts import Point, error_chart
from reparamkit.report.findings import Report
from reparamkit.report.page_document import (
    Group,
    Kernel,
    PageDocument,
    Stay,
    folds_after,
    folds_before,
    page_document,
)
from reparamkit.report.pages import page
from reparamkit.report.picture_plan import plan
from reparamkit.report.words import number, ratio_words, short, size_words

_SIDES = ("before", "after")
_IN_NOTEBOOK = 12


def fold_html(report: Report) -> str:
    """The page.

    Raises:
        MissingExtra: pygraphviz, which lays the pictures out, is not installed.
    """
    document = page_document(report)
    pictures = _pictures(report)
    kernels = [kernel for group in document["groups"] for kernel in group["kernels"]]
    return page(
        "fold.html",
        title=f"{report.name}: {_verdict(document)['head']}",
        kind="fold" if report.equivalence is not None else "inspect",
        report=_report(document, report),
        verdict=_verdict(document),
        tiles=_tiles(document),
        pictures=pictures,
        groups=_groups(document, report),
        folds_title=f"{number(len(report.folds), 'fold')}, each proven in float64",
        stays=[_stay(stay, report) for stay in document["stays"]],
        stays_title=_stays_title(report),
        chart=_chart(report),
        operators=_operators(document),
        kernels=[kernel["rows"] for kernel in kernels],
        document=document,
    )


def notebook_html(report: Report) -> str:
    """The page in short, to be shown in a notebook; with the picture where pygraphviz is installed."""
    document = page_document(report)
    picture = hint = ""
    try:
        picture = base64.b64encode(network_svg(report).encode("utf-8", "replace")).decode("ascii")
    except MissingExtra as missing:
        hint = str(missing)
    groups = _groups(document, report)
    verdict = _verdict(document)
    colours = {"good": "#2a9d5c", "bad": "#d0353d", "unsure": "#c07c10"}
    return page(
        "notebook.html",
        verdict=verdict,
        colour=colours.get(verdict["kind"], "#3b7ddd"),
        sizes=report.sizes,
        tiles=_tiles(document),
        folds_title=f"{number(len(report.folds), 'fold')}, each proven in float64",
        stays_title=_stays_title(report) if report.refusals else "",
        groups=groups[:_IN_NOTEBOOK],
        more=max(0, len(groups) - _IN_NOTEBOOK),
        picture=picture,
        hint=hint,
    )


def network_svg(report: Report) -> str:
    """The picture of the network before and after in one file.

    Raises:
        MissingExtra: pygraphviz is not installed.
    """
    return drawing.beside([(picture["title"], picture["svg"]) for picture in _pictures(report)])


def _pictures(report: Report) -> list[dict[str, str]]:
    if report.outlines is None or not any(outlined.calls for outlined in report.outlines):
        return []
    kept = {name for refusal in report.refusals for name in report.names_of(refusal)}
    pictures: list[dict[str, str]] = []
    modules = None
    for side, outlined, folds in zip(
        _SIDES, report.outlines, (folds_before(report), folds_after(report)), strict=True
    ):
        planned = plan(outlined.calls, folds, kept, folded=side == "after", modules=modules)
        modules = planned.modules
        title = f"{report.name} {side}"
        pictures.append({"side": side, "title": side.capitalize(), "svg": drawing.svg(planned, side, title)})
    return pictures


def _verdict(document: PageDocument) -> dict[str, str]:
    told: Mapping[str, Any] | None = document["report"]["equivalence"]
    folds = len(document["report"]["folds"])
    if told is None:
        head = f"{number(folds, 'fold')} found" if folds else "Nothing folds"
        return {
            "kind": "neutral",
            "head": head,
            "detail": "Inspected: nothing was compared as a whole or written.",
        }
    if told.get("untold"):
        return {"kind": "unsure", "head": "Cannot tell", "detail": str(told["untold"])}
    if not told["passed"]:
        return {"kind": "bad", "head": "Not equivalent", "detail": str(told.get("reason", ""))}
    return {"kind": "good", "head": "The same function", "detail": _figures(told)}


def _figures(told: Mapping[str, Any]) -> str:
    """What the verdict rests on, for a reader in a hurry."""
    words = [f"Error {_float(told['e1'])} of the output's scale"]
    if told.get("e0") is not None:
        words.append(f"the original's own in its precision is {_float(told['e0'])}")
    if told.get("budget") is not None:
        words.append(f"allowed were {_float(told['budget'])}")
    probes = len({entry["probe"] for entry in told.get("outputs", ())})
    tried = f" Tried on {number(probes, 'set')} of inputs." if probes else ""
    return f"{'; '.join(words)}.{tried}"


def _float(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1e}"


def _tiles(document: PageDocument) -> list[dict[str, str]]:
    before, after = document["totals"]["before"], document["totals"]["after"]
    kinds = (
        ("operators", "operators", ""),
        ("multiply-accumulates", "macs", ""),
        ("parameters", "parameters", ""),
        ("file size", "bytes", "B"),
    )
    tiles = [
        {
            "what": f"latency, {one['backend']}",
            "old": f"{one['before_ms']:.3g} ms",
            "new": f"{one['after_ms']:.3g} ms",
            "ratio": f"{one['times']:.2f} × as fast",
            "span": f"{one['before_ms']:.3g} → {one['after_ms']:.3g} ms",
        }
        for one in document["latency"]
    ]
    for what, name, unit in kinds:
        old, new = before[name], after[name]  # type: ignore[literal-required]
        if old is None and new is None:
            continue
        sizes = ["" if value is None else f"{size_words(value)}{unit}" for value in (old, new)]
        span = " → ".join(sizes) if all(sizes) else "before" if sizes[0] else "after"
        ratio = ratio_words(old, new) if old and new else sizes[0] or sizes[1]
        tiles.append({"what": what, "old": sizes[0], "new": sizes[1], "ratio": ratio, "span": span})
    return tiles


def _groups(document: PageDocument, report: Report) -> list[dict[str, Any]]:
    groups, kernels = [], 0
    for group in document["groups"]:
        places = [report.folds[member].where or "(the network)" for member in group["members"]]
        layers = [path for member in group["members"] for path in report.folds[member].layers]
        groups.append(
            {
                **group,
                "marks": " ".join(f"r{member}" for member in group["members"]),
                "after": _after(group),
                "error_text": f"{group['error']:.0e}",
                "words": " ".join([*places, *layers]),
                "places": ", ".join(places),
                "branches": [
                    {
                        "count": way["count"],
                        "steps": [{**step, "kind": kind(step["operator"])} for step in way["steps"]],
                    }
                    for way in group["branches"]
                ],
                "kernels": _kernels(group["kernels"], kernels),
            }
        )
        kernels += len(group["kernels"])
    return groups


def kind(operator: str) -> str:
    """The class of a pill: of layers, of norms, of others."""
    if operator.startswith(("conv", "linear", "matmul", "embedding")):
        return "layer"
    return "norm" if "_norm" in operator else ""


def _after(group: Group) -> str:
    return "; ".join(layer["text"] for layer in group["layers"]) or "nothing"


def _kernels(kernels: Sequence[Kernel], first: int) -> list[dict[str, Any]]:
    """All on a canvas of one size, so that 5 by 5 is seen to lie in the middle of 31 by 31."""
    cells = max((max(len(one["rows"]), len(one["rows"][0])) for one in kernels), default=0)
    return [
        {**one, "number": first + place, "side_cells": cells, "pixels": max(4, 156 // max(1, cells)) * cells}
        for place, one in enumerate(kernels)
    ]


def _stays_title(report: Report) -> str:
    stay = "stays" if len(report.refusals) == 1 else "stay"
    return f"{number(len(report.refusals), 'operator')} that might be expected to fold and {stay}"


def _stay(stay: Stay, report: Report) -> dict[str, Any]:
    members = [report.refusals[member] for member in stay["members"]]
    words = " ".join(f"{one.where} {one.node}" for one in members)
    return {**stay, "operator_word": short(stay["operator"]), "words": words}


def _chart(report: Report) -> str:
    points = [
        Point(fold.where or "(the network)", fold.error, fold.error <= report.bar, f"linked r{place}")
        for place, fold in enumerate(report.folds)
    ]
    title = "The float64 error of each fold"
    return error_chart(points, title, bar=report.bar, below="folds in the network's order") if points else ""


def _operators(document: PageDocument) -> list[dict[str, Any]]:
    before, after = document["report"]["before"], document["report"]["after"]
    names = dict.fromkeys([*before, *after])
    return [{"name": name, "before": before.get(name, 0), "after": after.get(name, 0)} for name in names]


def _report(document: PageDocument, report: Report) -> dict[str, Any]:
    """The findings with the words that the page has for them."""
    told = document["report"]
    files = [
        {
            **entry,
            "summary": file.equivalence.summary(),
            "bytes_text": "" if file.size is None else f"{size_words(file.size)}B",
            "holds": ", ".join(f"{count} {name}" for name, count in file.operators.most_common()),
        }
        for entry, file in zip(told["files"], report.files, strict=True)
    ]
    parts = [
        {**part, "words": "; ".join(filter(None, [part["sizes"] if part["folded"] else "", part["reason"]]))}
        for part in told["parts"]
    ]
    undone = [{**one, "operator_word": short(one["operator"])} for one in told["undone"]]
    return {**told, "files": files, "parts": parts, "undone": undone}
