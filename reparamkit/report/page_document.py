"""All that the page of a fold shows, as one JSON document.

`schemas/page-1.schema.json` describes it for others. Its format's name changes when a field changes its
meaning or goes away. The findings in it are those of `report.machine`, with their own number.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, TypedDict

from reparamkit.report.alike import alike_folds, alike_refusals
from reparamkit.report.bench_html import folded_and_original
from reparamkit.report.branches import branches
from reparamkit.report.findings import Calling, Outlined, Report
from reparamkit.report.machine import as_dict
from reparamkit.report.remedies import remedy
from reparamkit.report.words import channels_words, counted_words, operator_words, places_words

FORMAT = "reparamkit-page-1"
_LARGE = 7


class Latency(TypedDict):
    """How many times as fast the folded network is on a back end, with a 95 % interval."""

    backend: str
    before_ms: float
    after_ms: float
    times: float
    low: float
    high: float


class Total(TypedDict):
    """A network as a whole; None for what is not known."""

    operators: int
    macs: int | None
    parameters: int | None
    bytes: int | None


class Step(TypedDict):
    """One operator of a branch, or several that are equal in a row."""

    count: int
    operator: str
    text: str
    channels: str


class Way(TypedDict):
    """One branch, or several that are equal."""

    count: int
    steps: list[Step]


class Layer(TypedDict):
    """One layer that took the branches' place."""

    path: str
    text: str


class Kernel(TypedDict):
    """A large kernel: the mean magnitude of its weights at each place, as a share of `largest`."""

    side: str
    text: str
    largest: float
    rows: list[list[float]]


class Group(TypedDict):
    """Folds that differ in their place alone; `members` are numbers in the list of all folds."""

    members: list[int]
    where: str
    before: str
    branches: list[Way]
    more_branches: int
    layers: list[Layer]
    kernels: list[Kernel]
    error: float
    captured_only: bool


class Stay(TypedDict):
    """Operators that stay for one kind of reason; `members` are numbers in the list of all refusals."""

    members: list[int]
    operator: str
    where: str
    reason: str
    change: str


class Node(TypedDict):
    """One operator of a network; `fold` is the number of the fold that it is part of."""

    name: str
    operator: str
    module: str
    reads: list[str]
    shape: list[int]
    text: str
    macs: int
    fold: int | None


class Totals(TypedDict):
    """Before and after."""

    before: Total
    after: Total


class Graphs(TypedDict):
    """Before and after."""

    before: list[Node]
    after: list[Node]


class PageDocument(TypedDict):
    """The whole."""

    format: str
    report: dict[str, Any]
    command: str
    versions: dict[str, str]
    bar: float
    latency: list[Latency]
    totals: Totals
    groups: list[Group]
    stays: list[Stay]
    graphs: Graphs


def page_document(report: Report) -> PageDocument:
    """The document of a report."""
    before, after = report.outlines or (None, None)
    in_fold = folds_before(report)
    new = folds_after(report)
    sizes = (file.size for file in report.files if not str(file.path).endswith(".py"))
    written = next((size for size in sizes if size is not None), None)
    return PageDocument(
        format=FORMAT,
        report=as_dict(report),
        command=report.command,
        versions=dict(report.versions),
        bar=report.bar,
        latency=_latency(report),
        totals=Totals(
            before=_total(report.before, before, report.source_bytes),
            after=_total(report.after, after, written),
        ),
        groups=_groups(report),
        stays=_stays(report),
        graphs=Graphs(
            before=_nodes(before.calls if before else (), in_fold),
            after=_nodes(after.calls if after else (), new),
        ),
    )


def schema_text() -> str:
    """The JSON schema of the document, as it is published."""
    folder: Any = resources.files("reparamkit.report") / "schemas"
    text: str = (folder / "page-1.schema.json").read_text(encoding="utf-8")
    return text


def folds_before(report: Report) -> dict[str, int]:
    """Operator of the network before -> the fold that it is part of."""
    return {name: number for number, fold in enumerate(report.folds) for name in fold.nodes}


def folds_after(report: Report) -> dict[str, int]:
    """Operator of the network after -> the fold that it is a layer of."""
    layers = {path: number for number, fold in enumerate(report.folds) for path in fold.layers}
    calls = report.outlines[1].calls if report.outlines else ()
    return {call.name: layers[call.layer] for call in calls if call.layer in layers}


def _total(counts: dict[str, int], outlined: Outlined | None, size: int | None) -> Total:
    return Total(
        operators=sum(counts.values()),
        macs=outlined.macs if outlined else None,
        parameters=outlined.parameters if outlined else None,
        bytes=size,
    )


def _latency(report: Report) -> list[Latency]:
    return [
        Latency(
            backend=row["backend"],
            before_ms=before,
            after_ms=row["median_ms"],
            times=1 / row["ratios"]["original"]["median"],
            low=1 / row["ratios"]["original"]["high"],
            high=1 / row["ratios"]["original"]["low"],
        )
        for row, before in folded_and_original(report.latency)
    ]


def _groups(report: Report) -> list[Group]:
    before, after = (outlined.calls for outlined in report.outlines) if report.outlines else ((), ())
    inside: dict[int, list[Calling]] = {}
    in_fold = folds_before(report)
    for call in before:
        if call.name in in_fold:
            inside.setdefault(in_fold[call.name], []).append(call)
    layers = {call.layer: call for call in after if call.layer}
    groups = []
    for alike in alike_folds(report.folds):
        first = alike.members[0]
        ways, more = branches(inside.get(first, []))
        new = [layers[path] for path in alike.first.layers if path in layers]
        groups.append(
            Group(
                members=list(alike.members),
                where=places_words([report.folds[member].where for member in alike.members]),
                before=counted_words(alike.first.operators),
                branches=[Way(count=way.count, steps=_steps(way.steps)) for way in ways],
                more_branches=more,
                layers=[Layer(path=path, text=text) for path, text in alike.first.layers.items()],
                kernels=_kernels(inside.get(first, []), new),
                error=max(report.folds[member].error for member in alike.members),
                captured_only=alike.first.captured_only,
            )
        )
    return groups


def _steps(calls: Sequence[Calling]) -> list[Step]:
    steps: list[Step] = []
    for call in calls:
        step = Step(count=1, operator=call.operator, text=operator_words(call), channels=channels_words(call))
        if steps and {**steps[-1], "count": 1} == step:
            steps[-1]["count"] += 1
        else:
            steps.append(step)
    return steps


def _kernels(before: Sequence[Calling], after: Sequence[Calling]) -> list[Kernel]:
    """All kernels of a fold in which one is large."""
    kernels = [kernel for call in before for kernel in _kernel(call, "before")]
    kernels += [kernel for call in after for kernel in _kernel(call, "after")]
    sides = (max(len(kernel["rows"]), len(kernel["rows"][0])) for kernel in kernels)
    return kernels if max(sides, default=0) >= _LARGE else []


def _kernel(call: Calling, side: str) -> list[Kernel]:
    if len(call.window) != 2 or not call.kernel:
        return []
    largest = max(max(row) for row in call.kernel)
    rows = [[round(value / largest, 3) if largest else 0.0 for value in row] for row in call.kernel]
    return [Kernel(side=side, text=operator_words(call), largest=largest, rows=rows)]


def _stays(report: Report) -> list[Stay]:
    return [
        Stay(
            members=list(kept.members),
            operator=kept.first.operator,
            where=places_words([report.refusals[member].where for member in kept.members]),
            reason=kept.first.reason,
            change=remedy(kept.first.reason),
        )
        for kept in alike_refusals(report.refusals)
    ]


def _nodes(calls: Sequence[Calling], folds: dict[str, int]) -> list[Node]:
    return [
        Node(
            name=call.name,
            operator=call.operator,
            module=call.module,
            reads=list(call.reads),
            shape=list(call.shape),
            text=", ".join(filter(None, [operator_words(call), channels_words(call)])),
            macs=call.macs,
            fold=folds.get(call.name),
        )
        for call in calls
    ]
