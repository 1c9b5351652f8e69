"""The findings of `reparamkit check` as one page that needs nothing else: no script and no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from reparamkit.report.check_document import (
    Document,
    Entry,
    Location,
    Output,
    decimal,
    detail,
    entry_of,
    headline,
    number,
    place,
)

_COLOURS = {"same": "good", "different": "bad", "cannot tell": "unsure"}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #17803d; --bad: #c4232b; --unsure: #a15c00; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff7b80; --unsure: #f0b24a; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .unsure { color: var(--unsure); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; white-space: nowrap; }
tr.bad td { font-weight: 600; }
code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
"""
_FIGURES = ("max abs", "of scale", "allowed", "rms", "PSNR dB", "cosine", "top-1")


def html(document: Document) -> str:
    """The page."""
    title = escape(headline(document))
    parts = [
        f'<h1 class="{_COLOURS[document["status"]]}">{title}</h1>',
        f"<p>{escape(detail(document))}</p>",
    ]
    if document["rule"]:
        parts.append(f"<p>Judged by: {escape(document['rule'])}.</p>")
    location = document["location"]
    if location is not None:
        parts.append(f"<p><strong>{escape(location['text'])}</strong></p>")
    if document["outputs"]:
        parts += ["<h2>Outputs</h2>", _outputs(document["outputs"])]
        parts += [part for output in document["outputs"] for part in _output(output)]
    if location is not None and location["growth"]:
        parts += ["<h2>The error along the network</h2>", _growth(location)]
    if document["probes"]:
        parts += ["<h2>Probes</h2>", _probes(document)]
    if document["notes"]:
        parts += [
            "<h2>Notes</h2>",
            "<ul>",
            *(f"<li>{escape(note)}</li>" for note in document["notes"]),
            "</ul>",
        ]
    parts += ["<h2>What was compared</h2>", _facts(document)]
    if document["command"]:
        parts += ["<h2>Again</h2>", f"<p><code>{escape(document['command'])}</code></p>"]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _outputs(outputs: Sequence[Output]) -> str:
    rows = []
    for output in outputs:
        entry = entry_of(output, output["worst_probe"])
        worst = entry["worst"]
        cells = [
            _cell(output["name"]),
            _cell("passes" if output["passed"] else "FAILS"),
            _cell(output["why_no_evidence"] or "yes"),
            _cell(entry["probe"]),
            _cell(place(worst) or "-"),
            *(_cell(number(worst[side], 6), "n") for side in ("candidate", "reference")),
        ]
        rows.append((output["passed"], cells))
    heads = ["output", "", "evidence", "worst probe", "worst element"]
    return _table(heads, ["candidate there", "reference there"], rows)


def _output(output: Output) -> list[str]:
    rows = [
        (
            entry["passed"],
            [_cell(entry["probe"]), *(_cell(text, "n") for text in _figures(entry)), _verdict(entry)],
        )
        for entry in output["probes"]
    ]
    return [f"<h2>Output {escape(repr(output['name']))}</h2>", _table(["probe"], _FIGURES, rows, ["verdict"])]


def _figures(entry: Entry) -> list[str]:
    metrics = entry["metrics"]
    return [
        number(metrics["max_abs"]),
        number(entry["error"]),
        number(entry["allowed"]),
        number(metrics["rms"]),
        decimal(metrics["psnr"], 1),
        decimal(metrics["cosine"], 6),
        decimal(metrics["top1"], 3),
    ]


def _verdict(entry: Entry) -> str:
    if not entry["judged"]:
        return _cell("not judged")
    return _cell("ok" if entry["passed"] else "; ".join(entry["failures"]) or "FAILS")


def _growth(location: Location) -> str:
    rows = []
    for step in location["growth"]:
        cells = [_cell(step["place"]), _cell(step["node"])]
        cells += [_cell(number(step[name]), "n") for name in ("error", "noise")]
        rows.append((step["agrees"], [*cells, _cell("agrees" if step["agrees"] else "differs")]))
    return _table(["where", "in the candidate"], ["error", "rounding"], rows, [""])


def _probes(document: Document) -> str:
    rows = []
    for probe in document["probes"]:
        cells = [_cell(probe["name"]), _cell(probe["group"]), _cell(probe["failure"] or "ok")]
        rows.append((probe["passed"], cells))
    return _table(["probe", "group", "verdict"], [], rows)


def _facts(document: Document) -> str:
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
    return _table([], [], [(True, [_cell(name), _cell(value)]) for name, value in facts])


def _table(
    heads: Sequence[str],
    figures: Sequence[str],
    rows: Iterable[tuple[bool, list[str]]],
    last: Sequence[str] = (),
) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    head += "".join(f'<th class="n">{escape(name)}</th>' for name in figures)
    head += "".join(f"<th>{escape(name)}</th>" for name in last)
    lines = [f"<thead><tr>{head}</tr></thead>"] if head else []
    for passed, cells in rows:
        lines.append(f"<tr{'' if passed else ' class=bad'}>{''.join(cells)}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(text: str, kind: str = "") -> str:
    return f"<td{f' class={kind}' if kind else ''}>{escape(text)}</td>"
