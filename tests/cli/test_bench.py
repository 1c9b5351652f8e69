"""`reparamkit bench` by hand."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from lxml import etree

from tests.cli.running import HERE, SHAPE, Run, assert_refused

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
"""


def test_a_table_json_and_csv(run: Run) -> None:
    Path("timed_nets.py").write_text(NET)
    result = run(
        *(
            "bench",
            "timed_nets.py:build",
            "--input",
            "1x3x8x8",
            "--rounds",
            "2",
            "--backends",
            "eager,onnxruntime",
        ),
        *("--json", "bench.json", "--csv", "bench.csv", "--html", "bench.html"),
    )
    assert result.status == 0, result.err
    assert "as fast as it came" in result.out
    assert "1 thread, medians of 2 rounds in turn" in " ".join(result.out.split())
    rows = json.loads(Path("bench.json").read_text())["rows"]
    assert [(row["backend"], row["form"]) for row in rows] == [
        *(("eager", "original"), ("eager", "folded")),
        *(("onnxruntime", "original"), ("onnxruntime", "onnxsim"), ("onnxruntime", "folded")),
    ]
    assert len(Path("bench.csv").read_text().splitlines()) == 6
    tree = etree.fromstring(Path("bench.html").read_bytes(), etree.HTMLParser(recover=True))
    assert tree.xpath("//div[@class='what']/text()") == [
        "latency, eager",
        "latency, onnxruntime",
    ]
    assert len(tree.xpath("//svg//rect")) == len(tree.xpath("//table/tbody/tr")) == 5
    (held,) = tree.xpath("//script[@id='document']/text()")
    assert json.loads(held)["rows"] == rows
    assert run("inspect", "timed_nets.py:build", "--input", "1x3x8x8", "--bench", "bench.json").status == 0
    other = run("inspect", f"{HERE}:branchy", "--input", SHAPE, "--bench", "bench.json")
    assert other.status == 2
    assert "--bench bench.json has no figures of branchy, but of build" in other.err


@pytest.mark.parametrize("text", ["", "[]", '{"format": "reparamkit-bench-0"}', "not JSON"])
def test_figures_that_are_none(run: Run, text: str) -> None:
    Path("b.json").write_text(text)
    assert_refused(
        run("inspect", "mobileone_s0", "--bench", "b.json"), "--bench b.json is not what 'reparamkit bench"
    )
    assert_refused(
        run("inspect", "mobileone_s0", "--bench", "c.json"), "--bench c.json cannot be read: No such file"
    )


def test_a_network_that_is_named_twice_is_told(run: Run) -> None:
    Path("timed_nets.py").write_text(NET)
    result = run("bench", "timed_nets.py:build", "timed_nets.py:build", "--input", "1x3x8x8", "--rounds", "1")
    assert result.status == 2
    assert "named twice" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mobileone_s0", "--backends", "tflite"], "there is no back end 'tflite'"),
        (["mobileone_s0", "--size", "large"], "--size takes sizes such as 224x224"),
        (["mobileone_s0", "--rounds", "0"], "--rounds has to be at least 1"),
        (["mobileone_s9"], "did you mean mobileone_s4"),
        (["nothing.pt2"], "nothing.pt2"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, arguments: list[str], words: str) -> None:
    result = run("bench", *arguments)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def _written(run: Run, *files: str) -> None:
    Path("timed_nets.py").write_text(NET)
    outputs = [word for file in files for word in ("-o", file)]
    assert run("fold", "timed_nets.py:build", "--input", "1x3x8x8", *outputs).status == 0


def test_files_of_other_back_ends_are_timed_as_they_are(run: Run) -> None:
    _written(run, "net.pte", "net.onnx")
    result = run(
        *("bench", "net.pte", "net.onnx", "--input", "1x3x8x8", "--rounds", "2"),
        *("--json", "bench.json", "--html", "b.html"),
    )
    assert result.status == 0, result.err
    document = json.loads(Path("bench.json").read_text())
    schema = resources.files("reparamkit.report").joinpath("schemas/bench-1.schema.json").read_text()
    jsonschema.validate(document, json.loads(schema))
    rows = [(row["network"], row["backend"], row["form"]) for row in document["rows"]]
    assert rows == [
        ("net.pte", "executorch", "file"),
        ("net.onnx", "onnxruntime", "file"),
        ("net.onnx", "openvino", "file"),
    ]
    assert all(row["median_ms"] > 0 and row["note"] == "" for row in document["rows"])
    assert document["rows"][0]["file_bytes"] == Path("net.pte").stat().st_size
    assert document["inputs"] == {"net.pte": "1x3x8x8", "net.onnx": "1x3x8x8"}
    assert "executorch" in document["versions"]
    assert "net.pte" in Path("b.html").read_text()
    assert "file" in result.out


def test_a_file_takes_other_sizes_and_says_which_it_does_not(run: Run) -> None:
    _written(run, "net.pte")
    larger = run("bench", "net.pte", "--rounds", "1", "--batch", "2", "--size", "10x12", "--csv", "bench.csv")
    assert larger.status == 0, larger.err
    assert "net.pte, 2x3x10x12" in larger.out
    refused_size = run("bench", "net.pte", "--rounds", "1", "--size", "99x99")
    assert refused_size.status == 0
    assert "it does not run" in " ".join(refused_size.out.split())


def test_a_file_on_a_back_end_that_does_not_run_it(run: Run) -> None:
    _written(run, "net.pte", "net.onnx")
    assert_refused(
        run("bench", "net.pte", "--backends", "eager,onnxruntime"),
        "net.pte runs on executorch, which --backends does not name",
    )
    assert_refused(
        run("bench", "net.onnx", "--backends", "eager"),
        "net.onnx runs on onnxruntime and openvino, and --backends names neither",
    )
    Path("broken.pte").write_bytes(b"no program")
    assert run("bench", "broken.pte").status == 2
    assert run("bench", "missing.pte").status == 2


def test_a_network_on_executorch(run: Run) -> None:
    Path("timed_nets.py").write_text(NET)
    result = run(
        *("bench", "timed_nets.py:build", "--input", "1x3x8x8", "--rounds", "1"),
        *("--backends", "executorch", "--json", "bench.json"),
    )
    assert result.status == 0, result.err
    rows = json.loads(Path("bench.json").read_text())["rows"]
    assert [(row["form"], row["note"]) for row in rows] == [("original", ""), ("folded", "")]
    assert all(row["file_bytes"] for row in rows)
