"""The reports of `reparamkit check`: against their schemas, readable, and harmless whatever the names are."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import torch
from lxml import etree
from rich.console import Console

from reparamkit.compare.compare import compare
from reparamkit.compare.criteria import Criteria
from reparamkit.compare.inputs.input_spec import parse
from reparamkit.compare.profile import Profile
from reparamkit.report.check_document import Document, decimal, number, schema_text
from reparamkit.report.check_html import html
from reparamkit.report.check_junit import junit
from reparamkit.report.check_text import show_check
from tests.compare.files import linear, small, spoilt, write_quantised_onnx
from tests.compare.nets import Lambda

XSD = Path(__file__).parent.parent / "schemas" / "junit.xsd"
SHAPE = parse(["1x3x12x10"])


def document(reference: object, candidate: object, **options: Any) -> Document:
    options.setdefault("described", SHAPE)
    found = compare(reference, candidate, **options).comparison
    return cast("Document", json.loads(json.dumps(found.as_dict("reparamkit check a b"), allow_nan=False)))


def several(self: Lambda, x: torch.Tensor) -> dict[str, torch.Tensor]:
    y = self.conv(x)
    return {"map": y, "labels": y.argmax(1), "constant": torch.ones(2), "empty": y[:0], "scalar": y.mean()}


def _quantised(folder: Path) -> Document:
    return document(linear(), write_quantised_onnx(folder / "q.onnx"), described=parse(["64x6"]))


def _documents(folder: Path) -> dict[str, Document]:
    nan = Lambda(lambda self, x: self.conv(x) * float("nan"))
    shorter = Lambda(lambda self, x: self.conv(x)[:, :, 1:])
    return {
        "same": document(small(), small()),
        "different": document(small(), spoilt()),
        "limits": document(small(), spoilt(), profile=Profile(criteria=Criteria(atol=1e-3, top1=0.9))),
        "several": document(Lambda(several), Lambda(several)),
        "nan": document(Lambda(lambda self, x: self.conv(x)), nan),
        "both nan": document(nan, nan),
        "shapes": document(Lambda(lambda self, x: self.conv(x)), shorter),
        "nothing": document(small(), "no_such_model"),
        "quantised": _quantised(folder),
        "half": document(small(), small().half()),
    }


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    return _documents(tmp_path_factory.mktemp("nets"))


CASES = (
    *("same", "different", "limits", "several", "nan", "both nan", "shapes", "nothing", "quantised", "half"),
)
STATUS = {"different": 1, "nan": 1, "limits": 1, "both nan": 2, "shapes": 2, "nothing": 2}


@pytest.mark.parametrize("case", CASES)
def test_json_keeps_to_its_schema(documents: dict[str, Document], case: str) -> None:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(documents[case])
    assert documents[case]["exit_status"] == STATUS.get(case, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "maybe"},
        {"exit_status": 1},
        {"reason": "there is one"},
        {"extra": 1},
        {"inputs_hash": "short"},
        {"floor": "much"},
        {"format": "reparamkit-check-2"},
    ],
)
def test_the_schema_refuses_what_is_wrong(documents: dict[str, Document], change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    assert not validator.is_valid({**documents["same"], **change})
    for name in documents["same"]:
        assert not validator.is_valid({key: value for key, value in documents["same"].items() if key != name})


def _suite(text: str) -> Any:
    tree = etree.fromstring(text.encode())
    etree.XMLSchema(etree.parse(str(XSD))).assertValid(tree)
    (suite,) = tree
    return suite


@pytest.mark.parametrize("case", CASES)
def test_junit_keeps_to_the_schema_of_jenkins(documents: dict[str, Document], case: str) -> None:
    suite = _suite(junit(documents[case], 12.5))
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
    failed, unsure = int(suite.get("failures")) > 0, int(suite.get("errors")) > 0
    assert (failed or unsure) == (documents[case]["status"] != "same")
    assert unsure == (documents[case]["status"] == "cannot tell")
    assert len({(one.get("classname"), one.get("name")) for one in cases}) == len(cases)
    assert suite.get("time") == "12.500"


def test_the_times_are_those_that_were_measured(documents: dict[str, Document]) -> None:
    """Every case has its share, and all together are the whole."""
    outputs, probes = len(documents["several"]["outputs"]), documents["several"]["probes"]
    by_probe = {probe["name"]: 0.5 * (number + 1) for number, probe in enumerate(probes)}
    total = sum(by_probe.values()) + 2.25
    suite = _suite(junit(documents["several"], total, by_probe))
    times = {case.get("name"): float(case.get("time")) for case in suite.findall("testcase")}
    assert times["verdict"] == 2.25
    assert times[f"output map on {probes[2]['name']}"] == pytest.approx(1.5 / outputs, abs=1e-3)
    assert sum(times.values()) == pytest.approx(total, abs=1e-3 * len(times))
    shapes = documents["shapes"]
    first = shapes["probes"][0]["name"]
    (case,) = _suite(junit(shapes, 9.0, {first: 4.0})).xpath(f"testcase[@name='outputs on {first}']")
    assert case.get("time") == "4.000"


def test_a_comparison_knows_how_long_each_probe_took() -> None:
    found = compare(small(), small(), described=SHAPE).comparison
    assert set(found.seconds) == {probe.name for probe in found.probes}
    assert all(0 < seconds < 60 for seconds in found.seconds.values())
    assert "seconds" not in json.dumps(found.as_dict())


def test_a_schema_that_would_admit_anything_is_none() -> None:
    schema = etree.XMLSchema(etree.parse(str(XSD)))
    for bad in ("<testsuite/>", "<testsuites><testcase name='a'/></testsuites>", "<other/>"):
        assert not schema.validate(etree.fromstring(bad))


def test_one_case_for_each_output_and_probe(documents: dict[str, Document]) -> None:
    suite = _suite(junit(documents["several"]))
    names = [case.get("name") for case in suite.findall("testcase")]
    probes = [probe["name"] for probe in documents["several"]["probes"]]
    outputs = ["map", "labels", "constant", "empty", "scalar"]
    assert names == ["verdict", *(f"output {o} on {p}" for o in outputs for p in probes)]


def test_a_failure_can_be_read(documents: dict[str, Document]) -> None:
    suite = _suite(junit(documents["different"]))
    failures = {case.get("name"): case.find("failure") for case in suite if case.tag == "testcase"}
    failure = failures["output output on normal 1"]
    assert re.fullmatch(
        r"output output\[0, \d\] on the probe 'normal 1': an error of \d\.\d\de-\d\d of its scale, "
        r"\d\.\d\de-\d\d is allowed",
        failure.get("message"),
    )
    assert "candidate  " in failure.text
    assert "reference  " in failure.text
    limits = _suite(junit(documents["limits"])).findall("testcase/failure")
    assert any("max abs is" in failure.get("message") for failure in limits)
    shapes = _suite(junit(documents["shapes"]))
    assert "shape (1, 4, 11, 10) in the candidate" in shapes.find("testcase/error").get("message")


def test_what_is_not_judged_is_skipped(documents: dict[str, Document]) -> None:
    suite = _suite(junit(documents["quantised"]))
    skipped = [case.get("name") for case in suite.findall("testcase") if case.find("skipped") is not None]
    assert any("on large" in name for name in skipped)
    assert not any("on normal" in name for name in skipped)


@pytest.mark.parametrize("case", CASES)
def test_the_page_stands_alone(documents: dict[str, Document], case: str) -> None:
    page = html(documents[case])
    tree = etree.fromstring(page.encode(), etree.HTMLParser(recover=False))
    assert not tree.xpath("//script[@src] | //link | //img | //iframe | //@src | //@href | //@onload")
    assert "url(" not in page
    assert "http" not in page
    words = " ".join(tree.xpath("//text()"))
    assert documents[case]["status"].upper() in words
    for probe in documents[case]["probes"]:
        assert probe["name"] in words
    for package, version in documents[case]["versions"].items():
        assert package in words
        assert version in words


def shown(found: Document, width: int = 160) -> str:
    stream = io.StringIO()
    show_check(found, Console(file=stream, width=width, markup=False, emoji=False, highlight=False))
    return stream.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_comes_first(documents: dict[str, Document], case: str) -> None:
    lines = shown(documents[case]).splitlines()
    assert lines[0].startswith(documents[case]["status"].upper() + ": ")
    assert lines[-1] == "again: reparamkit check a b"
    assert lines[-2] == f"seed 0, {len(documents[case]['probes'])} probes"
    if documents[case]["reason"]:
        assert lines[1] == documents[case]["reason"]


def test_the_text_names_every_failing_probe(documents: dict[str, Document]) -> None:
    text = shown(documents["different"])
    failing = [probe["name"] for probe in documents["different"]["probes"] if not probe["passed"]]
    (line,) = [line for line in text.splitlines() if " probes fail: " in line]
    assert line.startswith(f"{len(failing)} of {len(documents['different']['probes'])} probes fail: ")
    assert line.partition(" fail: ")[2].split(", ", 1)[0] == failing[0]
    assert all(name in line for name in failing)
    assert "worst element: output[0, " in text
    shapes = shown(documents["shapes"])
    assert "failing probe: example: output 'output' has the shape (1, 4, 11, 10)" in shapes


def test_many_outputs_take_one_line_each(documents: dict[str, Document]) -> None:
    lines = shown(documents["several"]).splitlines()
    rows = [line.split()[0] for line in lines if line.endswith("ok")]
    assert rows == ["map", "labels", "constant", "empty", "scalar"]


EVIL = "<script>alert(1)</script> & \"'`[bold]\x00\x1b[31m]]>\ud800"


def test_names_are_only_names(documents: dict[str, Document]) -> None:
    found = json.loads(json.dumps(documents["different"]).replace('"output"', json.dumps(EVIL)))
    found["candidate"]["name"] = EVIL
    found["notes"] = [EVIL]
    found["reason"] = EVIL
    found["probes"][0]["name"] = found["outputs"][0]["probes"][0]["probe"] = EVIL
    page = html(found)
    assert "<script>alert" not in page
    assert page.count("<script") == html(documents["same"]).count("<script") == 1
    suite = _suite(junit(found))
    assert suite.findall("testcase")
    found = json.loads(json.dumps(found).replace("\\ud800", "").replace("\\u0000", "").replace("\\u001b", ""))
    assert "[bold]" in shown(found)


def test_numbers_in_words() -> None:
    assert number(0.0) == "0"
    assert number(None) == "-"
    assert number("inf") == "inf"
    assert number(1.234e-5) == "1.23e-05"
    assert number(1.234e-5, 6) == "1.234000e-05"
    assert decimal(3.14159, 2) == "3.14"
    assert decimal("nan", 2) == "nan"
    assert decimal(None, 2) == "-"


def test_every_report_says_where_they_first_differ(documents: dict[str, Document]) -> None:
    document = documents["different"]
    location = document["location"]
    assert location is not None
    assert location["found"]
    assert location["place"] == "first"
    sentence = location["text"]
    assert sentence.startswith("first differs at first (convolution first): error ")
    text = _shown(document)
    assert text.splitlines()[3] == sentence
    assert "the error along the network, on the probe" in text
    (failure,) = _suite(junit(document)).xpath("testcase[@name='verdict']/failure")
    assert failure.get("message") == f"{document['reason']}; {sentence}"
    assert sentence in failure.text
    page = etree.HTML(html(document))
    assert sentence in page.xpath("//strong/text()")
    (table,) = page.xpath("//h2[.='The error along the network']/following::table[1]")
    rows = [[cell.text or "" for cell in row] for row in table.xpath(".//tr[td]")]
    assert [row[-1] for row in rows] == [
        "agrees" if step["agrees"] else "differs" for step in location["growth"]
    ]
    assert {row[-1] for row in rows} == {"differs"}
    assert [row[0] for row in rows] == [step["place"] for step in location["growth"]]


def test_a_place_that_is_not_known_is_not_named(documents: dict[str, Document]) -> None:
    document = cast("Document", json.loads(json.dumps(documents["different"])))
    location = document["location"]
    assert location is not None
    location["found"], location["place"], location["reason"] = False, "", "because"
    location["nodes"], location["growth"], location["error"], location["before"] = [], [], None, None
    location["text"] = "where it first differs is not known: because"
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(document)
    assert location["text"] in _shown(document)
    assert "the error along" not in _shown(document)
    assert "The error along" not in html(document)
    assert location["text"] in html(document)


def test_where_there_is_no_difference_there_is_no_place(documents: dict[str, Document]) -> None:
    for case in ("same", "nothing", "both nan", "shapes"):
        assert documents[case]["location"] is None, case


@pytest.mark.parametrize(
    "change", [{"found": True, "reason": "x"}, {"found": False, "reason": ""}, {"text": ""}, {"extra": 1}]
)
def test_the_schema_refuses_a_wrong_place(documents: dict[str, Document], change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    location = cast("dict[str, Any]", documents["different"]["location"])
    assert validator.is_valid({**documents["different"], "location": location})
    assert not validator.is_valid({**documents["different"], "location": {**location, **change}})


def _shown(document: Document) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    show_check(document, console)
    return cast("io.StringIO", console.file).getvalue()
