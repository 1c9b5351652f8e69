"""The findings of `reparamkit check` as one page: the verdict, the error in one picture, then the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from reparamkit.report.charts import Point, error_chart
from reparamkit.report.check_document import (
    FIGURES,
    Document,
    Entry,
    Location,
    Number,
    Output,
    detail,
    entry_of,
    figures,
    headline,
    number,
    place,
)
from reparamkit.report.pages import page

_COLOURS = {"same": "good", "different": "bad", "cannot tell": "unsure"}


def html(document: Document) -> str:
    """The page."""
    location = document["location"]
    growth = location is not None and bool(location["growth"])
    return page(
        "check.html",
        title=headline(document),
        kind="check",
        document=document,
        colour=_COLOURS[document["status"]],
        detail=detail(document),
        tiles=_tiles(document),
        chart=_growth_chart(location) if location is not None and growth else _probe_chart(document),
        growth=_growth(location) if location is not None and growth else None,
        outputs=_outputs(document["outputs"]) if document["outputs"] else None,
        each=[{"name": repr(output["name"]), "table": _output(output)} for output in document["outputs"]],
        probes=_probes(document) if document["probes"] else None,
        facts=_facts(document),
    )


def _tiles(document: Document) -> list[dict[str, str]]:
    """What a reader in a hurry looks for."""
    if not document["outputs"]:
        return []
    outputs, probes = document["outputs"], document["probes"]
    good, tried = sum(output["passed"] for output in outputs), sum(probe["passed"] for probe in probes)
    tiles = [
        _tile("outputs that agree", good, len(outputs)),
        _tile("sets of inputs that agree", tried, len(probes)),
    ]
    judged = [entry for output in outputs for entry in output["probes"] if entry["judged"]]
    if judged:
        worst = max(judged, key=lambda entry: _share(entry))
        share = _share(worst)
        if math.isfinite(share):
            tiles.append(
                {
                    "what": "largest error, of what is allowed",
                    "value": f"{100 * share:.0f} %" if share < 100 else f"{share:.0f} ×",
                    "more": f"{number(worst['error'], 1)} of {number(worst['allowed'], 1)}",
                    "kind": "good" if share <= 1 else "bad",
                }
            )
    return tiles


def _tile(what: str, good: int, count: int) -> dict[str, str]:
    kind = "good" if good == count else "bad"
    return {"what": what, "value": f"{good} of {count}", "more": "", "kind": kind}


def _share(entry: Entry) -> float:
    """The error as a share of what is allowed."""
    error, allowed = _float(entry["error"]), _float(entry["allowed"])
    if error == 0:
        return 0.0
    return error / allowed if 0 < allowed < math.inf else math.inf


def _float(value: Number | None) -> float:
    """The number; what is none, or no number, is as bad as can be."""
    if value is None or isinstance(value, str):
        return math.inf
    return float(value)


def _growth_chart(location: Location) -> str:
    points = [
        Point(step["place"] or step["node"], _float(step["error"]), step["agrees"])
        for step in location["growth"]
    ]
    line = [_float(step["noise"]) for step in location["growth"]]
    return error_chart(points, "The error along the network", line=line, below="places along the network")


def _probe_chart(document: Document) -> str:
    entries = [(output, entry) for output in document["outputs"] for entry in output["probes"]]
    entries = [(output, entry) for output, entry in entries if entry["judged"]]
    if not entries:
        return ""
    points = [
        Point(f"{output['name']}, {entry['probe']}", _float(entry["error"]), entry["passed"])
        for output, entry in entries
    ]
    known = all(isinstance(entry["allowed"], float | int) for _, entry in entries)
    line = [_float(entry["allowed"]) for _, entry in entries] if known else []
    title = "The error on each set of inputs"
    return error_chart(points, title, line=line, below="sets of inputs, output by output", along=False)


def _outputs(outputs: Sequence[Output]) -> dict[str, Any]:
    rows = []
    for output in outputs:
        entry = entry_of(output, output["worst_probe"])
        worst = entry["worst"]
        cells = [
            output["name"],
            "passes" if output["passed"] else "FAILS",
            output["why_no_evidence"] or "yes",
            entry["probe"],
            place(worst) or "-",
            *(number(worst[side], 6) for side in ("candidate", "reference")),
        ]
        rows.append((output["passed"], cells))
    heads = ["output", "", "evidence", "worst probe", "worst element"]
    return _table(heads, ["candidate there", "reference there"], rows)


def _output(output: Output) -> dict[str, Any]:
    rows = [
        (entry["passed"], [entry["probe"], *figures(entry), _verdict(entry)]) for entry in output["probes"]
    ]
    return _table(["probe"], FIGURES, rows, ["verdict"])


def _verdict(entry: Entry) -> str:
    if not entry["judged"]:
        return "not judged"
    return "ok" if entry["passed"] else "; ".join(entry["failures"]) or "FAILS"


def _growth(location: Location) -> dict[str, Any]:
    rows = []
    for step in location["growth"]:
        cells = [step["place"], step["node"], number(step["error"]), number(step["noise"])]
        rows.append((step["agrees"], [*cells, "agrees" if step["agrees"] else "differs"]))
    return _table(["where", "in the candidate"], ["error", "rounding"], rows, [""])


def _probes(document: Document) -> dict[str, Any]:
    rows = [
        (probe["passed"], [probe["name"], probe["group"], probe["failure"] or "ok"])
        for probe in document["probes"]
    ]
    return _table(["probe", "group", "verdict"], [], rows)


def _facts(document: Document) -> dict[str, Any]:
    facts = []
    for role, side in (("reference", document["reference"]), ("candidate", document["candidate"])):
        details = ", ".join(word for word in (side["runner"], side["precision"]) if word)
        facts.append((role, side["name"] + (f" ({details})" if details else "")))
    for entry in document["inputs"]:
        shape = "x".join(map(str, entry["shape"])) or "a scalar"
        facts.append((f"input {entry['name']}", f"{shape} {entry['dtype']}, {entry['kind']}"))
    facts += [("seed", str(document["seed"])), ("oracle", document["oracle"] or "-")]
    facts += [("hash of the inputs", document["inputs_hash"] or "-")]
    facts += list(document["versions"].items())
    return _table([], [], [(True, [name, value]) for name, value in facts])


def _table(
    heads: Sequence[str],
    figures: Sequence[str],
    rows: Iterable[tuple[bool, list[str]]],
    last: Sequence[str] = (),
) -> dict[str, Any]:
    """A table as its template takes it: columns of words, of figures, and the last ones of words again."""
    named = [(text, False) for text in heads] + [(text, True) for text in figures]
    named += [(text, False) for text in last]

    def cell(column: int, text: str) -> dict[str, Any]:
        head, figure = named[column] if named else ("", False)
        return {"text": text, "figure": figure, "head": head if column else ""}

    return {
        "figures": bool(figures),
        "heads": [{"text": text, "figure": figure} for text, figure in named],
        "rows": [
            {"bad": not passed, "cells": [cell(column, text) for column, text in enumerate(cells)]}
            for passed, cells in rows
        ],
    }
