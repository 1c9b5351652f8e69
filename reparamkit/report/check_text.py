"""The findings of `reparamkit check` for a terminal: the verdict first, then figures, then what to know."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from reparamkit.report.check_document import (
    FIGURES,
    Document,
    Entry,
    Location,
    Output,
    detail,
    entry_of,
    figures,
    headline,
    number,
    place,
)

_STYLES = {"same": "bold green", "different": "bold red", "cannot tell": "bold yellow"}
_FEW_OUTPUTS = 3


def show_check(document: Document, console: Console) -> None:
    """Print the whole report."""
    for part in rendered(document):
        console.print(part, soft_wrap=isinstance(part, Text))


def rendered(document: Document) -> list[RenderableType]:
    """The report, piece by piece."""
    parts: list[RenderableType] = [Text(headline(document), _STYLES[document["status"]])]
    parts.append(Text(detail(document)))
    if document["rule"]:
        parts.append(Text(f"judged by: {document['rule']}"))
    location = document["location"]
    if location is not None:
        parts.append(Text(location["text"], "bold" if location["found"] else ""))
    parts.append(Text())
    if document["outputs"]:
        several = len(document["outputs"]) > _FEW_OUTPUTS
        if several:
            parts += [_summary(document["outputs"]), Text()]
        for output in document["outputs"]:
            if not several or not output["passed"]:
                parts += [*_output(output), Text()]
    if location is not None and location["growth"]:
        parts += [*_growth(location), Text()]
    parts += _failing(document)
    parts += [Text(f"note: {note}") for note in document["notes"]]
    return parts + [Text(line) for line in _footer(document)]


def _output(output: Output) -> list[RenderableType]:
    title = f"output {output['name']!r}: {'passes' if output['passed'] else 'FAILS'}"
    if not output["evidence"]:
        title += f", but {output['why_no_evidence']}"
    table = _table("probe")
    for entry in output["probes"]:
        table.add_row(entry["probe"], *_figures(entry), style="" if entry["passed"] else "bold red")
    worst = entry_of(output, output["worst_probe"])
    values = f"{number(worst['worst']['candidate'], 6)}, reference {number(worst['worst']['reference'], 6)}"
    where = f"worst element: {output['name']}{place(worst['worst'])} on the probe {worst['probe']!r}"
    return [Text(title, "bold"), table, Text(f"{where}: candidate {values}")]


def _growth(location: Location) -> list[RenderableType]:
    table = Table(box=None, pad_edge=False)
    for name in ("where", "in the candidate"):
        table.add_column(name, overflow="fold")
    for name in ("error", "rounding"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for step in location["growth"]:
        figures = number(step["error"]), number(step["noise"])
        style, verdict = ("", "agrees") if step["agrees"] else ("red", "differs")
        table.add_row(step["place"], step["node"], *figures, verdict, style=style)
    return [Text(f"the error along the network, on the probe {location['probe']!r}", "bold"), table]


def _failing(document: Document) -> list[RenderableType]:
    """Every failing probe by name; in words where there are no figures for it above."""
    failing = [probe for probe in document["probes"] if not probe["passed"]]
    if not failing:
        return []
    shown = {entry["probe"] for output in document["outputs"] for entry in output["probes"]}
    wordless = [probe["name"] for probe in failing if probe["name"] in shown]
    parts: list[RenderableType] = []
    if wordless:
        count = f"{len(failing)} of {len(document['probes'])} probes fail"
        parts.append(Text(f"{count}: {', '.join(wordless)}"))
    parts += [
        Text(f"failing probe: {probe['name']}: {probe['failure']}")
        for probe in failing
        if probe["name"] not in shown
    ]
    return [*parts, Text()]


def _summary(outputs: list[Output]) -> Table:
    table = _table("output", "worst probe")
    for output in outputs:
        worst = entry_of(output, output["worst_probe"])
        style = "" if output["passed"] else "bold red"
        table.add_row(output["name"], worst["probe"], *_figures(worst), style=style)
    return table


def _table(*first: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in first:
        table.add_column(name, overflow="fold")
    for name in FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    return table


def _figures(entry: Entry) -> list[str]:
    verdict = "ok" if entry["passed"] else "FAILS"
    return [*figures(entry), verdict if entry["judged"] else "not judged"]


def _footer(document: Document) -> list[str]:
    sides = [document["reference"], document["candidate"]]
    lines = [
        f"{role}: {side['name']}" + (f" ({side['runner']}, {side['precision']})" if side["runner"] else "")
        for role, side in zip(("reference", "candidate"), sides, strict=True)
    ]
    for entry in document["inputs"]:
        shape = "x".join(map(str, entry["shape"])) or "a scalar"
        lines.append(f"input {entry['name']}: {shape} {entry['dtype']}, {entry['kind']}")
    lines.append(f"seed {document['seed']}, {len(document['probes'])} probes")
    if document["command"]:
        lines.append(f"again: {document['command']}")
    return lines
