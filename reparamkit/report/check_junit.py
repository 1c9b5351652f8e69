"""The findings of `reparamkit check` as JUnit XML, one test case per output and probe.

It keeps to what the Jenkins xUnit plugin's `junit-10.xsd` admits, which GitLab, GitHub actions and Azure read
as well. What failed is a failure; what cannot be told is an error, so that no system takes it for success.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from xml.etree import ElementTree

from reparamkit.report.check_document import Document, Entry, Output, headline, number, place

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(document: Document, seconds: float = 0.0, by_probe: Mapping[str, float] | None = None) -> str:
    """The XML, with its declaration.

    Args:
        document: what was found.
        seconds: how long all of it took.
        by_probe: how long each probe took; its outputs share that evenly, and what is left of the whole
            (opening the two, looking for the place) is the verdict's.
    """
    by_probe = by_probe or {}
    name = f"reparamkit check {document['reference']['name']} {document['candidate']['name']}"
    suite = ElementTree.Element("testsuite", {"name": _clean(name), "time": f"{seconds:.3f}"})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(document).items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": _clean(value)})
    group = f"reparamkit.check.{re.sub(r'[^0-9A-Za-z_-]+', '_', document['candidate']['name']).strip('_')}"
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}

    def case(title: str, took: float) -> ElementTree.Element:
        counts["tests"] += 1
        return ElementTree.SubElement(
            suite, "testcase", {"classname": group, "name": _clean(title), "time": f"{took:.3f}"}
        )

    def add(parent: ElementTree.Element, kind: str, message: str, text: str) -> None:
        counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
        element = ElementTree.SubElement(parent, kind, {"message": _clean(message)})
        if kind != "skipped":
            element.set("type", document["status"])
        element.text = _clean(text)

    verdict = case("verdict", max(0.0, seconds - sum(by_probe.values())))
    if document["status"] == "cannot tell":
        add(verdict, "error", document["reason"], _whole(document))
    elif document["status"] == "different":
        add(verdict, "failure", "; ".join([document["reason"], *_located(document)]), _whole(document))
    sharing = Counter(entry["probe"] for output in document["outputs"] for entry in output["probes"])
    for probe in document["probes"]:
        if probe["name"] not in sharing:
            this = case(f"outputs on {probe['name']}", by_probe.get(probe["name"], 0.0))
            add(this, "failure", probe["failure"], probe["failure"])
    for output in document["outputs"]:
        for entry in output["probes"]:
            took = by_probe.get(entry["probe"], 0.0) / sharing[entry["probe"]]
            this = case(f"output {output['name']} on {entry['probe']}", took)
            if not entry["passed"]:
                add(this, "failure", _message(output, entry), _figures(output, entry))
            elif not entry["judged"]:
                add(this, "skipped", "reported only: this probe does not count for the verdict", "")
    for key, count in counts.items():
        suite.set(key, str(count))
    root = ElementTree.Element("testsuites", {"name": "reparamkit check"})
    root.append(suite)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _message(output: Output, entry: Entry) -> str:
    where = f"output {output['name']}{place(entry['worst'])} on the probe {entry['probe']!r}"
    if entry["failures"]:
        return f"{where}: {'; '.join(entry['failures'])}"
    channel = entry["worst"]["channel"]
    whose = f"the scale of channel {channel[1]} along axis {channel[0]}" if channel else "its scale"
    return f"{where}: an error of {number(entry['error'])} of {whose}, {number(entry['allowed'])} is allowed"


def _figures(output: Output, entry: Entry) -> str:
    worst = entry["worst"]
    lines = [
        f"output     {output['name']}",
        f"probe      {entry['probe']}",
        f"worst      {place(worst) or 'the only element'}",
        f"candidate  {number(worst['candidate'], 8)}",
        f"reference  {number(worst['reference'], 8)}",
        f"error      {number(entry['error'])} of the scale {number(entry['scale'])}",
        f"allowed    {number(entry['allowed'])}",
        *(f"{name:10} {number(value, 6)}" for name, value in _measures(entry).items()),
    ]
    return "\n" + "\n".join(lines) + "\n"


def _measures(entry: Entry) -> dict[str, float | str | None]:
    metrics = entry["metrics"]
    return {
        "max abs": metrics["max_abs"],
        "rms": metrics["rms"],
        "PSNR": metrics["psnr"],
        "cosine": metrics["cosine"],
        "top-1": metrics["top1"],
    }


def _whole(document: Document) -> str:
    lines = [headline(document), document["reason"], *_located(document)]
    failing = [probe["name"] for probe in document["probes"] if not probe["passed"]]
    lines += [f"failing probes: {', '.join(failing)}"] if failing else []
    lines += [f"note: {note}" for note in document["notes"]]
    lines += [f"judged by: {document['rule']}"] if document["rule"] else []
    lines += [f"again: {document['command']}"] if document["command"] else []
    return "\n" + "\n".join(lines) + "\n"


def _located(document: Document) -> list[str]:
    return [document["location"]["text"]] if document["location"] is not None else []


def _properties(document: Document) -> dict[str, str]:
    return {
        "status": document["status"],
        "rule": document["rule"],
        "seed": str(document["seed"]),
        "inputs_hash": document["inputs_hash"],
        **{f"version.{package}": version for package, version in document["versions"].items()},
    }


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold, not even escaped."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
