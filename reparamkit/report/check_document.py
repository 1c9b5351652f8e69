"""The findings of `reparamkit check`: the JSON document that the other files of this report lay out.

`schemas/check-1.schema.json` describes it for others. A number that JSON lacks is the text "inf", "-inf" or
"nan" in it. Its format's name changes when a field changes its meaning or goes away.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, TypedDict

Number = float | str
FIGURES = ("max abs", "of scale", "allowed", "rms", "PSNR dB", "cosine", "top-1")


class Side(TypedDict):
    """One network."""

    name: str
    runner: str
    precision: str


class Input(TypedDict):
    """One input."""

    name: str
    shape: list[int]
    dtype: str
    kind: str


class Probe(TypedDict):
    """One set of inputs that was tried."""

    name: str
    group: str
    passed: bool
    sizes: dict[str, int]
    failure: str
    set_aside: str


class Metrics(TypedDict):
    """Measures of an error; None where it has none."""

    max_abs: Number | None
    max_rel: Number | None
    rms: Number | None
    psnr: Number | None
    cosine: Number | None
    top1: Number | None


class Worst(TypedDict):
    """The element with the largest error."""

    index: list[int]
    channel: list[int] | None
    reference: Number
    candidate: Number


class Entry(TypedDict):
    """One output under one probe."""

    probe: str
    passed: bool
    judged: bool
    failures: list[str]
    error: Number
    own_error: Number | None
    allowed: Number | None
    scale: Number
    metrics: Metrics
    worst: Worst


class Output(TypedDict):
    """One output."""

    name: str
    passed: bool
    evidence: bool
    why_no_evidence: str
    worst_probe: str
    probes: list[Entry]


class Step(TypedDict):
    """One place on the way through the networks."""

    place: str
    node: str
    error: Number
    noise: Number
    agrees: bool


class Location(TypedDict):
    """Where the two begin to differ, or why that is not known."""

    found: bool
    text: str
    probe: str
    place: str
    nodes: list[str]
    error: Number | None
    before: Number | None
    after: str
    reason: str
    growth: list[Step]


class Document(TypedDict):
    """The whole."""

    format: str
    status: str
    exit_status: int
    reason: str
    summary: str
    reference: Side
    candidate: Side
    rule: str
    seed: int
    oracle: str | None
    floor: Number | None
    inputs: list[Input]
    inputs_hash: str
    probes: list[Probe]
    outputs: list[Output]
    location: Location | None
    notes: list[str]
    versions: dict[str, str]
    command: str


def schema_text() -> str:
    """The JSON schema of the document, as it is published."""
    folder: Any = resources.files("reparamkit.report") / "schemas"
    text: str = (folder / "check-1.schema.json").read_text(encoding="utf-8")
    return text


def number(value: Number | None, digits: int = 2) -> str:
    """A number for people: "1.23e-05", "0", "inf"; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return "0" if value == 0 else f"{value:.{digits}e}"


def decimal(value: Number | None, digits: int) -> str:
    """A number with a fixed count of decimals."""
    if value is None or isinstance(value, str):
        return number(value)
    return f"{value:.{digits}f}"


def figures(entry: Entry) -> list[str]:
    """The error of an output under a probe for people, a number under each of `FIGURES`."""
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


def place(worst: Worst) -> str:
    """The index of an element as in Python."""
    return f"[{', '.join(map(str, worst['index']))}]" if worst["index"] else ""


def headline(document: Document) -> str:
    """The verdict in one sentence, to be read first."""
    names = f"{document['candidate']['name']} against {document['reference']['name']}"
    return f"{document['status'].upper()}: {names}"


def detail(document: Document) -> str:
    """What the verdict rests on, or why it is what it is."""
    return document["reason"] or document["summary"].removeprefix(f"{document['status']}: ")


def entry_of(output: Output, probe: str) -> Entry:
    """The entry of an output under one probe."""
    return next(entry for entry in output["probes"] if entry["probe"] == probe)
