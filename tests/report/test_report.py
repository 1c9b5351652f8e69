"""The report of findings made by hand: laid out for a terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reparamkit.hosts.fx.outline import Call, Outline
from reparamkit.report.findings import Report
from reparamkit.report.machine import SCHEMA, as_dict
from reparamkit.report.text import show


@dataclasses.dataclass(frozen=True)
class Fold:
    where: str
    operators: dict[str, int]
    layers: dict[str, str]
    error: float
    captured_only: bool = False
    nodes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Refusal:
    where: str
    node: str
    operator: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    passed: bool = True

    def summary(self) -> str:
        return "equivalent: error 1.0e-07"

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "e1": 1e-7, "notes": ["[b]"]}


@dataclasses.dataclass(frozen=True)
class File:
    path: Path = Path("net.onnx")
    operators: Counter[str] = dataclasses.field(default_factory=lambda: Counter({"Conv": 2, "Relu": 3}))
    equivalence: Verdict = Verdict()
    notes: tuple[str, ...] = ("not simplified",)
    size: int | None = 1234


FOLDS = (
    Fold(
        "stem", {"aten.conv2d.default": 2, "aten.add.Tensor": 1}, {"stem.conv": "Conv2d 3 -> 4, 3x3"}, 2e-16
    ),
    Fold("", {"aten.batch_norm.default": 1}, {}, 3e-15),
)
REPORT = Report(
    name="net",
    sizes="free batch size",
    before={"conv2d": 2, "add": 1, "relu": 3},
    after={"conv2d": 1, "relu": 3, "mul": 1},
    folds=FOLDS,
    refusals=(),
    notes=("it was in training mode",),
    equivalence=Verdict(),
    files=(File(),),
)


def text(report: Report, width: int = 120) -> list[str]:
    stream = io.StringIO()
    show(report, Console(file=stream, width=width, highlight=False, markup=False, emoji=False))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def with_refusals(*refusals: Refusal) -> Report:
    return dataclasses.replace(REPORT, refusals=refusals)


def mul(where: str, node: str, reason: str) -> Refusal:
    return Refusal(where, node, "aten.mul.Tensor", reason)


def test_the_whole_report() -> None:
    assert text(REPORT) == [
        "net  (free batch size)",
        "",
        "operator  before  after",
        "conv2d         2      1",
        "add            1      0",
        "relu           3      3",
        "mul            0      1",
        "",
        "2 folds, each proven in float64 (largest relative error 3e-15)",
        "where          before            after",
        "stem           2 conv2d + 1 add  stem.conv: Conv2d 3 -> 4, 3x3",
        "(the network)  1 batch_norm      (nothing)",
        "",
        "note: it was in training mode",
        "whole network: equivalent: error 1.0e-07",
        "",
        "net.onnx: equivalent: error 1.0e-07",
        "  holds 3 Relu, 2 Conv",
        "  note: not simplified",
    ]


def test_nothing_folds() -> None:
    report = dataclasses.replace(REPORT, folds=(), files=(), notes=(), equivalence=None)
    lines = text(report)
    assert lines[8:] == ["Nothing folds.", ""]


def test_a_title_is_one_line_however_narrow_its_table() -> None:
    report = dataclasses.replace(REPORT, folds=(dataclasses.replace(FOLDS[0], layers={"a": "b"}),))
    assert "1 fold, each proven in float64 (largest relative error 2e-16)" in text(report)


def test_a_fold_that_was_proven_at_one_size_only_says_so() -> None:
    report = dataclasses.replace(REPORT, folds=(dataclasses.replace(FOLDS[0], captured_only=True), FOLDS[1]))
    lines = text(report)
    place = next(i for i, line in enumerate(lines) if line.startswith("stem"))
    assert lines[place + 1].strip() == "(proven at the captured size only)"
    folds = as_dict(report)["folds"]
    assert [fold["proven_at_the_captured_size_only"] for fold in folds] == [True, False]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_nothing(width: int) -> None:
    where = "stages.3.blocks.11.token_mixer.large_kernel"
    report = dataclasses.replace(REPORT, folds=(dataclasses.replace(FOLDS[0], where=where),))
    lines = text(report, width)
    start = next(i for i, line in enumerate(lines) if line.startswith("where "))
    rows = lines[start + 1 : lines.index("", start)]
    assert "".join(row.split()[0] for row in rows if not row[0].isspace()) == where
    assert all(len(row) <= width for row in rows)


def test_refusals_are_grouped_by_operator_and_reason_but_for_names_and_numbers() -> None:
    report = with_refusals(
        mul("a", "mul_1", "its input comes from relu 'relu_1', 1.5 times the cost"),
        mul("b", "mul_2", "its input comes from relu 'relu_2', 2.25 times the cost"),
        mul("b", "mul_3", "its input comes from relu 'relu_7', 3.0 times the cost"),
        mul("c", "mul_4", "it multiplies two values"),
        Refusal("", "bn", "aten.batch_norm.default", "it multiplies two values"),
    )
    lines = text(report)
    start = lines.index("5 operators that might be expected to fold and stay")
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 5]] == [
        "operator",
        "3 mul",
        "1 mul",
        "1 batch_norm",
    ]
    assert lines[start + 2].split(maxsplit=4)[2:] == [
        "a,",
        "b",
        "its input comes from relu 'relu_1', 1.5 times the cost",
    ]
    assert "(the network)" in lines[start + 4]


@dataclasses.dataclass(frozen=True)
class Piece:
    where: str
    folded: bool
    reason: str
    sizes: str


def test_parts_and_folds_that_were_taken_back() -> None:
    pieces = (
        Piece("trunk", True, "its own layers stay too", "fixed sizes"),
        Piece("head", False, "it has hooks", ""),
    )
    undone = (mul("a.b", "mul_1", "the check failed"), mul("", "mul_2", "it failed"))
    report = dataclasses.replace(REPORT, parts=pieces, undone=undone, files=(), notes=(), equivalence=None)
    assert text(report)[13:] == [
        "2 folds failed their own check and were taken back",
        "operator   where          why",
        "mul mul_1  a.b            the check failed",
        "mul mul_2  (the network)  it failed",
        "",
        "1 part of the network folded, 1 left as they were",
        "part",
        "trunk  folded  fixed sizes; its own layers stay too",
        "head   left    it has hooks",
        "",
    ]
    found = as_dict(report)
    assert [u["where"] for u in found["undone"]] == ["a.b", ""]
    assert found["parts"][1] == {"where": "head", "folded": False, "reason": "it has hooks", "sizes": ""}


def test_many_places_are_counted() -> None:
    lines = text(with_refusals(*(mul(f"s{i}", f"mul_{i}", "it stays") for i in range(11))), width=200)
    row = next(line for line in lines if line.startswith("11 mul"))
    assert "s0, s1, s2, s3, s4, s5, s6, s7 and 3 more" in row
    row = next(
        line
        for line in text(with_refusals(*(mul(f"s{i}", "n", "it stays") for i in range(8))), width=200)
        if line.startswith("8 mul")
    )
    assert "s7" in row
    assert "more" not in row


def test_names_are_printed_as_they_are() -> None:
    report = dataclasses.replace(
        REPORT, name="[red]x[/b] :smile:", notes=("[bold]", ":tada:"), files=(File(path=Path("[/i].onnx")),)
    )
    lines = text(report)
    assert lines[0] == "[red]x[/b] :smile:  (free batch size)"
    assert "note: [bold]" in lines
    assert "note: :tada:" in lines
    assert "[/i].onnx: equivalent: error 1.0e-07" in lines


def test_json_round_trip() -> None:
    report = with_refusals(mul("a", "mul_1", "it ‘stays’"))
    found = json.loads(json.dumps(as_dict(report)))
    assert found == as_dict(report)
    assert found == {
        "schema": SCHEMA,
        "name": "net",
        "sizes": "free batch size",
        "before": {"conv2d": 2, "add": 1, "relu": 3},
        "after": {"conv2d": 1, "relu": 3, "mul": 1},
        "folds": [
            {
                "where": "stem",
                "operators": {"aten.conv2d.default": 2, "aten.add.Tensor": 1},
                "layers": {"stem.conv": "Conv2d 3 -> 4, 3x3"},
                "float64_error": 2e-16,
                "proven_at_the_captured_size_only": False,
            },
            {
                "where": "",
                "operators": {"aten.batch_norm.default": 1},
                "layers": {},
                "float64_error": 3e-15,
                "proven_at_the_captured_size_only": False,
            },
        ],
        "refusals": [
            {"where": "a", "node": "mul_1", "operator": "aten.mul.Tensor", "reason": "it ‘stays’"},
        ],
        "undone": [],
        "parts": [],
        "notes": ["it was in training mode"],
        "equivalence": {"passed": True, "e1": 1e-7, "notes": ["[b]"]},
        "files": [
            {
                "path": "net.onnx",
                "operators": {"Conv": 2, "Relu": 3},
                "equivalence": {"passed": True, "e1": 1e-7, "notes": ["[b]"]},
                "notes": ["not simplified"],
            }
        ],
    }


def test_json_of_an_inspection() -> None:
    found = as_dict(Report("net", "fixed sizes", {}, {}, (), (), ()))
    assert found["equivalence"] is None
    assert found["files"] == found["folds"] == found["refusals"] == found["notes"] == []


def many(count: int, kinds: int) -> Report:
    """A report of many folds, and of as many operators that stay."""
    folds = tuple(
        Fold(
            f"stage{i}.block",
            {"aten.conv2d.default": 1 + i % kinds, "aten.add.Tensor": 1},
            {f"stage{i}.block.conv": f"Conv2d {i % kinds} -> 4, 3x3"},
            1e-15,
        )
        for i in range(count)
    )
    refusals = tuple(
        Refusal(f"stage{i}", f"mul_{i}", "aten.mul.Tensor", "it stays" + " and stays" * (i % kinds))
        for i in range(count)
    )
    before = {f"operator_{i}": i for i in range(40)}
    notes = tuple(f"note {i}" for i in range(30))
    return dataclasses.replace(REPORT, folds=folds, refusals=refusals, before=before, notes=notes)


def test_equal_folds_are_one_line_with_a_count() -> None:
    lines = text(many(20, 2))
    start = next(i for i, line in enumerate(lines) if line.startswith("where"))
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 3]] == [
        "stage0.block … stage18.block",
        "stage1.block … stage19.block",
    ]
    assert "10 ×" in lines[start + 1]
    assert lines[start + 1].endswith("Conv2d 0 -> 4, 3x3")


@pytest.mark.diagonal
@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize(("count", "kinds"), [(3, 3), (60, 4), (200, 50), (1000, 1000)])
def test_sixty_lines_at_most_and_the_rest_with_all(count: int, kinds: int, width: int) -> None:
    report = many(count, kinds)
    lines = text(report, width)
    assert len(lines) <= 60
    assert any(line.startswith(f"{count} folds, each proven") for line in lines)
    assert any("whole network: equivalent" in line for line in lines), "the verdict is never left out"
    if kinds > 50:
        assert any("--all" in line for line in lines)
    stream = io.StringIO()
    console = Console(file=stream, width=400, highlight=False, markup=False, emoji=False)
    show(report, console, everything=True)
    whole = stream.getvalue()
    assert "--all" not in whole
    assert all(f"stage{i}.block.conv: " in whole for i in range(count))
    assert all(f"note: note {i}" in whole for i in range(30))


def test_layers_of_other_sizes_are_one_kind_where_there_are_many() -> None:
    report = dataclasses.replace(
        REPORT,
        folds=tuple(
            Fold(f"a{i}", {"aten.conv2d.default": 1}, {f"a{i}.conv": f"Conv2d {i} -> 4, 3x3"}, 1e-15)
            for i in range(50)
        ),
    )
    row = next(line for line in text(report) if line.startswith("a0"))
    assert row.split("  ")[0] == "a0 … a49"
    assert "50 ×" in row
    assert row.endswith("Conv2d")


def test_what_it_bought_stands_in_the_summary() -> None:
    before = Outline((Call("a", "conv2d", "", macs=3_000_000),), 2000)
    after = Outline((Call("a", "conv2d", "", macs=1_000_000),), 1990)
    lines = text(dataclasses.replace(REPORT, outlines=(before, after)))
    assert [line.split() for line in lines[3:6]] == [
        ["all", "6", "5", "1.20", "×", "fewer"],
        ["multiply-accumulates", "3.00", "M", "1.00", "M", "3.00", "×", "fewer"],
        ["parameters", "2.00", "k", "1.99", "k", "−0.5", "%"],
    ]


def test_no_colours_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    report = dataclasses.replace(REPORT, undone=(mul("a", "mul_1", "the check failed"),))
    show(report, Console(file=stream, width=120, force_terminal=True, highlight=False))
    assert "\x1b[31m" not in stream.getvalue()
    assert ";31m" not in stream.getvalue()
