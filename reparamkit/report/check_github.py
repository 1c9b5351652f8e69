"""The findings of `reparamkit check` for GitHub Actions: annotations, and a page for the job's summary.

An annotation is a line that the runner takes for a command, ``::error title=…::message``. The runner decodes
%25, %0D and %0A in a message, and %3A and %2C in a title as well; whatever else a name holds stays as it is.
"""

from __future__ import annotations

import html

from reparamkit.report.check_document import (
    Document,
    Output,
    decimal,
    detail,
    entry_of,
    headline,
    number,
    place,
)

MOST = 10
"""Annotations of one kind that GitHub shows of one step."""
_LONGEST = 1000
_MOST_OUTPUTS = 200
_MARKS = {"same": "✅", "different": "❌", "cannot tell": "⚠️"}
_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]#|~$"})


def annotation(kind: str, title: str, message: str) -> str:
    """One line for the runner's log; `kind` is error, warning or notice."""
    text = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
    return f"::{kind} title={_property(title)}::{_message(text)}"


def annotations_of(document: Document) -> list[str]:
    """The verdict and each output that fails as errors; what weakens a verdict of "same" as warnings."""
    title = f"reparamkit check: {document['status']}"
    if document["status"] != "same":
        lines = [f"{headline(document)}\n{detail(document)}", *_located(document)]
        others = [_failing(output) for output in document["outputs"] if not output["passed"]][1:]
        return [
            annotation("error", title, "\n".join(lines)),
            *(annotation("error", title, text) for text in _some(others, MOST - 1, "outputs fail")),
        ]
    blind = [
        f"output {output['name']}: {output['why_no_evidence']}"
        for output in document["outputs"]
        if not output["evidence"]
    ]
    doubts = list(dict.fromkeys([*blind, *document["notes"]]))
    return [annotation("warning", title, text) for text in _some(doubts, MOST, "notes")]


def summary(document: Document) -> str:
    """A page of Markdown: verdict, figures of each output, notes, and the command that does it again."""
    lines = [
        f"### {_MARKS[document['status']]} {_plain(headline(document))}",
        "",
        _plain(detail(document)),
        "",
    ]
    lines += [part for text in _located(document) for part in (f"**{_plain(text)}**", "")]
    outputs = sorted(document["outputs"], key=lambda output: output["passed"])
    if outputs:
        lines += [
            "| output | | worst probe | place | error | allowed | PSNR dB | cosine | top-1 |",
            "|---|---|---|---|--:|--:|--:|--:|--:|",
            *(_row(output) for output in outputs[:_MOST_OUTPUTS]),
            "",
        ]
        if len(outputs) > _MOST_OUTPUTS:
            lines += [f"{len(outputs) - _MOST_OUTPUTS} more outputs stand in the report.", ""]
    failing = [probe["name"] for probe in document["probes"] if not probe["passed"]]
    if failing:
        count = f"{len(failing)} of {len(document['probes'])} probes fail"
        lines += [f"{count}: {_plain(', '.join(failing))}", ""]
    if document["rule"]:
        lines += [f"Judged by: {_plain(document['rule'])}", ""]
    if document["notes"]:
        lines += [*(f"- {_plain(note)}" for note in document["notes"]), ""]
    for side in ("reference", "candidate"):
        told = document[side]
        how = f" ({_plain(told['runner'])}, {told['precision']})" if told["runner"] else ""
        lines += [f"{side}: {_plain(told['name'])}{how}  "]
    if document["command"]:
        lines += ["", f"Again: <code>{html.escape(_flat(document['command']))}</code>"]
    return "\n".join([*lines, "", ""])


def _row(output: Output) -> str:
    worst = entry_of(output, output["worst_probe"])
    metrics = worst["metrics"]
    verdict = "passes" if output["passed"] else "**fails**"
    cells = [
        _plain(output["name"]),
        verdict if output["evidence"] else f"{verdict}, but {_plain(output['why_no_evidence'])}",
        _plain(worst["probe"]),
        _plain(place(worst["worst"])),
        number(worst["error"]),
        number(worst["allowed"]),
        decimal(metrics["psnr"], 1),
        decimal(metrics["cosine"], 6),
        decimal(metrics["top1"], 3),
    ]
    return f"| {' | '.join(cells)} |"


def _failing(output: Output) -> str:
    worst = entry_of(output, output["worst_probe"])
    limits = "; ".join(worst["failures"])
    said = limits or f"an error of {number(worst['error'])}, where {number(worst['allowed'])} is allowed"
    return f"output {output['name']}{place(worst['worst'])} on the probe {worst['probe']!r}: {said}"


def _some(texts: list[str], most: int, what: str) -> list[str]:
    """At most so many of them; the last says how many it stands for."""
    if len(texts) <= most:
        return texts
    return [*texts[: most - 1], f"{len(texts) - most + 1} more {what}; the report has them"]


def _located(document: Document) -> list[str]:
    return [document["location"]["text"]] if document["location"] is not None else []


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _flat(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text that Markdown and a table leave as it is: a network's names may hold anything."""
    return html.escape(_flat(text), quote=False).translate(_SIGNS)
