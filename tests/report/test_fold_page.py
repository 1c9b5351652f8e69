"""The page of a fold and the picture in it, read as text; `test_pages_in_a_browser.py` opens them."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, cast

import jsonschema
import pytest
from lxml import etree

from reparamkit.errors import MissingExtra
from reparamkit.hosts.fx.outline import Call, Outline
from reparamkit.report import drawing
from reparamkit.report.alike import alike_folds, alike_refusals
from reparamkit.report.branches import branches
from reparamkit.report.charts import Point, error_chart
from reparamkit.report.fold_html import fold_html, network_svg, notebook_html
from reparamkit.report.page_document import FORMAT, folds_before, page_document, schema_text
from reparamkit.report.picture_plan import plan
from reparamkit.report.repeats import repeats
from tests.report.networks import folded, report
from tests.report.test_report import REPORT as BY_HAND


def document() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(json.dumps(page_document(report()), allow_nan=False)))


def test_the_document_keeps_to_its_schema() -> None:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(document())
    validator.validate(json.loads(json.dumps(page_document(BY_HAND))))
    assert document()["format"] == FORMAT == schema["properties"]["format"]["const"]


@pytest.mark.parametrize(
    "change",
    [{"format": "reparamkit-page-2"}, {"bar": "small"}, {"extra": 1}, {"groups": [{}]}, {"graphs": {}}],
)
def test_the_schema_refuses_what_is_wrong(change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    assert not validator.is_valid({**document(), **change})
    for name in document():
        assert not validator.is_valid({key: value for key, value in document().items() if key != name})


def test_what_a_fold_was_and_became() -> None:
    groups = {group["where"]: group for group in document()["groups"]}
    blocks = groups["blocks.0 … blocks.3"]
    assert len(blocks["members"]) == 4
    assert [[step["text"] for step in way["steps"]] for way in blocks["branches"]] == [
        ["conv2d 9×9, depthwise", "batch_norm"],
        ["conv2d 3×3, depthwise", "batch_norm"],
        [],
    ]
    assert blocks["layers"] == [{"path": "blocks.0.reparam_conv", "text": "Conv2d 8 -> 8, 9x9, groups 8"}]
    assert [(kernel["side"], len(kernel["rows"])) for kernel in blocks["kernels"]] == [
        ("before", 9),
        ("before", 3),
        ("after", 9),
    ]
    totals = document()["totals"]
    assert totals["before"]["macs"] == folded().outlines[0].macs > totals["after"]["macs"]
    assert totals["before"]["parameters"] > totals["after"]["parameters"]


def test_every_operator_knows_its_fold() -> None:
    found = document()
    for number, fold in enumerate(folded().folds):
        inside = [node for node in found["graphs"]["before"] if node["fold"] == number]
        assert {node["name"] for node in inside} == set(fold.nodes)
        (layer,) = (node for node in found["graphs"]["after"] if node["fold"] == number)
        assert layer["module"] in fold.layers


def test_what_stays_says_what_would_have_to_change() -> None:
    stays = {stay["operator"].split(".")[1]: stay for stay in document()["stays"]}
    assert "Pad with the value" in stays["batch_norm"]["change"]
    assert "attention or a gate" in stays["mul"]["change"]


def test_blocks_in_a_row_are_one_with_a_count() -> None:
    before, after = folded().outlines
    for outlined in (before, after):
        layers = {
            fold: number for number, one in enumerate(folded().folds) for fold in (*one.nodes, *one.layers)
        }
        in_fold = {
            call.name: layers.get(call.layer or call.name, -1)
            for call in outlined.calls
            if (call.layer or call.name) in layers
        }
        found = repeats(outlined.calls, in_fold)
        (block,) = found.blocks
        assert (block.modules, block.last, block.count) == (("blocks.0",), ("blocks.3",), 4)
        assert set(found.stands_for.values()) < {call.name for call in outlined.calls}
        assert all(found.stands_for[name] == name for name in block.calls)


def chain(*calls: tuple[str, str, tuple[str, ...]]) -> list[Call]:
    """Calls from (name, module, what they read)."""
    return [Call(name, "relu", module, reads=reads, shape=(1, 4)) for name, module, reads in calls]


def test_branches_and_blocks_that_fold_differently_are_not_one() -> None:
    beside = chain(("x", "", ()), ("a", "m.0", ("x",)), ("b", "m.1", ("x",)))
    assert not repeats(beside, {}).blocks
    behind = chain(("x", "", ()), ("a", "m.0", ("x",)), ("b", "m.1", ("a",)), ("c", "m.2", ("b",)))
    assert [block.count for block in repeats(behind, {}).blocks] == [3]
    assert not repeats(behind[:3], {"a": 0}).blocks
    assert [block.count for block in repeats(behind, {"b": 0, "c": 1}).blocks] == [2]


def test_pairs_of_modules_repeat() -> None:
    calls = [Call("x", "input", "")]
    for index in range(6):
        calls.append(Call(f"n{index}", ("relu", "gelu")[index % 2], f"m.{index}", reads=(calls[-1].name,)))
    (block,) = repeats(calls, {}).blocks
    assert (block.modules, block.last, block.count) == (("m.0", "m.1"), ("m.4", "m.5"), 3)


def test_a_branch_is_a_way_from_sum_to_sum() -> None:
    region = [
        Call("pad", "pad", "", reads=("x",)),
        Call("row", "slice", "", reads=("pad",)),
        Call("filled", "slice_scatter", "", reads=("pad", "row")),
        Call("conv", "conv2d", "", reads=("filled",), window=(3, 3), stride=(1, 1), dilation=(1, 1)),
        Call("sum", "add", "", reads=("conv", "x")),
        Call("more", "add", "", reads=("sum", "y")),
    ]
    ways, more = branches(region)
    assert [([step.operator for step in way.steps], way.count) for way in ways] == [
        (["pad", "slice_scatter", "conv2d"], 1),
        ([], 2),
    ]
    assert more == 0


def test_a_large_network_is_drawn_coarser() -> None:
    calls = [Call("x", "input", "")]
    for index in range(900):
        module = f"stage{index // 300}.block{index // 30}.op{index}"
        calls.append(
            Call(f"n{index}", "conv2d", module, reads=(calls[-1].name,), channels=(index, index + 1))
        )
        calls.append(Call(f"m{index}", "relu", module, reads=(calls[-1].name, calls[-2].name)))
    drawn = plan(calls, {}, (), folded=False, most=100)
    assert len(drawn.boxes) == 31
    assert drawn.boxes[1].lines == ["stage0.block0", "30 conv2d", "30 relu"]
    assert len(plan(calls, {}, (), folded=False, most=10_000).boxes) > 900


def test_folds_are_framed_and_kept_operators_marked() -> None:
    drawn = plan(folded().outlines[0].calls, folds_before(report()), ["batch_norm_9"], folded=False)
    framed = [frame for frame in drawn.frames if frame.kind == "region"]
    assert {region for frame in framed for region in frame.regions} >= {1, 2, 3, 4}
    names = {box.name for box in drawn.boxes}
    assert {end for arrow in drawn.arrows for end in arrow} <= names
    places = {box.name: place for place, box in enumerate(drawn.boxes)}
    assert all(places[tail] < places[head] for tail, head in drawn.arrows)
    assert any(box.kept for box in drawn.boxes)
    assert ["sum of 3"] in [box.lines for box in drawn.boxes]


def test_equal_folds_and_reasons_are_grouped() -> None:
    assert [group.count for group in alike_folds(folded().folds)] == [1, 4]
    assert [group.count for group in alike_folds(folded().folds, apart=True)] == [1] * 5
    assert sum(group.count for group in alike_refusals(folded().refusals)) == len(folded().refusals)


def test_the_chart_holds_every_error_between_its_ends() -> None:
    points = [Point("a <b>", 0.0, True), Point("c", 1e-15, True), Point("d", float("inf"), False)]
    tree = etree.fromstring(error_chart(points, "errors", bar=1e-10))
    heights = [float(circle.get("cy")) for circle in tree.iter("circle")]
    assert heights[2] < heights[1] <= heights[0]
    assert tree.findtext("circle/title") == "a <b>: 0.0e+00"
    (bar,) = tree.xpath("line[@class='bar']")
    assert heights[2] <= float(bar.get("y1")) < heights[1]


RATIOS = {"original": {"median": 0.25, "low": 0.2, "high": 0.5}}
BENCH: list[dict[str, Any]] = [
    {"backend": "onnxruntime", "form": "original", "median_ms": 8.5, "ratios": {}},
    {"backend": "onnxruntime", "form": "folded", "median_ms": 2.0, "ratios": RATIOS},
    {"backend": "eager", "form": "original", "median_ms": 8.5, "ratios": {}},
    {"backend": "eager", "form": "folded", "median_ms": None, "ratios": {}},
]


def test_what_was_timed_is_the_first_figure() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    told = dataclasses.replace(report(), latency=BENCH)
    found = json.loads(json.dumps(page_document(told)))
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(found)
    (timed,) = found["latency"]
    assert timed == {
        "backend": "onnxruntime", "before_ms": 8.5, "after_ms": 2.0, "times": 4.0, "low": 2.0, "high": 5.0,
    }  # fmt: skip
    tree = etree.fromstring(fold_html(told).encode(), etree.HTMLParser(recover=True))
    assert tree.xpath("//div[@class='ratio']/text()")[0] == "4.00 × as fast"


@pytest.mark.parametrize("make", [fold_html, network_svg])
def test_without_graphviz_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pygraphviz", None)
    with pytest.raises(MissingExtra, match="picture of a network needs the package 'pygraphviz'"):
        make(report())
    with pytest.raises(MissingExtra):
        drawing.require()
    text = notebook_html(report())
    assert "pygraphviz" in text
    assert "data:image" not in text


def test_the_page_is_one_file() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    page = fold_html(report())
    tree = etree.fromstring(page.encode(), etree.HTMLParser(recover=True))
    assert not tree.xpath("//link | //iframe | //script[@src] | //img")
    assert not re.search(r"""(src|href)=|url\(|https?://(?!www\.w3\.org)""", page)
    assert "The same function" in " ".join(tree.xpath("//text()"))
    (held,) = tree.xpath("//script[@id='document']/text()")
    assert json.loads(held) == document()


def test_a_network_without_folds_and_without_a_graph() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    page = fold_html(
        dataclasses.replace(BY_HAND, folds=(), refusals=(), files=(), notes=(), equivalence=None)
    )
    assert "Nothing folds" in page
    assert "<h2>The network" not in page


NEEDS_GRAPHVIZ = "pygraphviz, of the extra html, lays the pictures out"
EVIL = "<script>alert(1)</script>\"'&]]>\\\\N{{x}}"


def test_names_are_only_names() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    before, after = folded().outlines
    evil = tuple(
        dataclasses.replace(call, module=EVIL if number % 9 < 5 and number < 18 else "<b>&amp;</b>\\n")
        for number, call in enumerate(before.calls)
    )
    told = dataclasses.replace(
        report(), name=EVIL, notes=(EVIL,), outlines=(Outline(evil, before.parameters), after), command=EVIL
    )
    page = fold_html(told)
    assert "<script>alert" not in page
    tree = etree.fromstring(page.encode(), etree.HTMLParser(recover=True))
    assert EVIL in tree.xpath("//h1/text()")
    picture = etree.fromstring(network_svg(told).encode())
    assert picture.tag.endswith("svg")
    assert not picture.xpath("//*[local-name()='script']")
    titles = " ".join(picture.xpath("//*[local-name()='title']/text()"))
    assert EVIL in titles
    assert "<b>&amp;</b>\\n" in titles


def test_titles_of_frames_and_boxes_are_written_as_they_are() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    module = "<b>&amp;\\n</b>"
    calls = [
        Call("x", "input", ""),
        Call("a", "relu", module, reads=("x",)),
        Call("b", "gelu", "m", reads=("a",)),
    ]
    calls += [Call("c", "relu", module, reads=("b",)), Call("d", "gelu", module, reads=("c", "b"))]
    drawn = drawing.svg(plan(calls, {}, (), folded=False, modules=[module]), "s", EVIL)
    tree = etree.fromstring(drawn.encode())
    texts = [text.strip() for text in tree.xpath("//*[local-name()='text']/text()")]
    assert module in texts
    assert tree.xpath("//*[local-name()='title']/text()")[0] == EVIL
    assert any(
        "(gelu)" in title for title in tree.xpath("//*[local-name()='g']/*[local-name()='title']/text()")
    )


def test_the_picture_alone_is_svg_with_its_own_colours() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    tree = etree.fromstring(network_svg(report()).encode())
    space = {"s": "http://www.w3.org/2000/svg"}
    texts = " ".join(tree.xpath("//s:text/text()", namespaces=space))
    assert "4 ×" in texts
    assert "conv2d 9×9, depthwise" in texts
    (style,) = tree.xpath("s:style/text()", namespaces=space)
    assert "prefers-color-scheme: dark" in style
    assert len(tree.xpath("//s:g[contains(@class, 'folded')]", namespaces=space)) == 2


def test_a_fold_shows_itself_in_a_notebook() -> None:
    pytest.importorskip("pygraphviz", reason=NEEDS_GRAPHVIZ)
    text = folded()._repr_html_()
    etree.fromstring(text.encode(), etree.HTMLParser(recover=False))
    assert "The same function" in text
    assert "blocks.0 … blocks.3" in text
    assert "data:image/svg+xml;base64," in text
    assert "<script" not in text
