"""What `fold` and `inspect` say of their findings: pages, pictures, all of it, nothing, one operator."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from lxml import etree

from tests.cli.running import HERE, SHAPE, Run, assert_refused, content

NET = (f"{HERE}:branchy", "--input", SHAPE)
GRAPHVIZ = "pygraphviz, of the extra html, lays the pictures out"


def test_a_page_and_a_picture(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pygraphviz", reason=GRAPHVIZ)
    result = run("fold", *NET, "-o", "a.pt2", "--html", "a.html", "--svg", "a.svg", "--json", "a.json")
    assert result.status == 0, result.err
    assert sorted(content(tmp_path)) == ["a.html", "a.json", "a.pt2", "a.svg"]
    tree = etree.fromstring((tmp_path / "a.html").read_bytes(), etree.HTMLParser(recover=True))
    assert tree.xpath("//h1/text()") == ["branchy"]
    assert "The same function" in " ".join(tree.xpath("//text()"))
    (held,) = tree.xpath("//script[@id='document']/text()")
    document = json.loads(held)
    written = json.loads((tmp_path / "a.json").read_text())
    assert written.pop("seconds")["total"] > 0
    assert document["report"] == written
    assert document["command"].startswith("reparamkit fold")
    assert document["totals"]["after"]["bytes"] == (tmp_path / "a.pt2").stat().st_size
    assert set(document["versions"]) == {"reparamkit", "torch"}
    assert etree.parse(str(tmp_path / "a.svg")).getroot().tag.endswith("svg")


def test_an_inspection_has_a_page_too(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pygraphviz", reason=GRAPHVIZ)
    assert run("inspect", *NET, "--html", "a.html").status == 0
    assert list(content(tmp_path)) == ["a.html"]
    assert "1 fold found" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("command", ["fold", "inspect"])
@pytest.mark.parametrize("option", ["--html", "--svg"])
def test_without_graphviz_nothing_is_begun(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    assert_refused(run(command, *NET, option, "a.out"), "needs the package 'pygraphviz'", "html")
    assert not content(tmp_path)


@pytest.mark.parametrize("option", ["--html", "--svg", "--json"])
def test_reports_do_not_replace_the_source(run: Run, tmp_path: Path, option: str) -> None:
    (tmp_path / "net.pt2").write_bytes(b"dear")
    assert_refused(run("inspect", "net.pt2", option, "net.pt2"), f"{option} net.pt2 would replace the source")
    assert content(tmp_path) == {"net.pt2": b"dear"}


def test_two_reports_have_two_files(run: Run) -> None:
    assert_refused(run("inspect", *NET, "--json", "a", "--html", "a"), "a is named for two outputs")


@pytest.mark.parametrize("option", ["--quiet", "-q"])
def test_quiet(run: Run, tmp_path: Path, option: str) -> None:
    result = run("fold", *NET, "-o", "a.pt2", option)
    assert (result.status, result.out) == (0, "")
    assert list(content(tmp_path)) == ["a.pt2"]
    assert "named for two outputs" in run("inspect", *NET, option, "--json", "a", "--html", "a").err


def test_all_of_it(run: Run) -> None:
    short, long = run("inspect", *NET), run("inspect", *NET, "--all")
    assert short.status == long.status == 0
    assert short.out == long.out, "a small network is told whole"


def test_one_operator(run: Run) -> None:
    result = run("inspect", *NET, "--node", "wide.1")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("batch_norm 'batch_norm' in wide.1")
    assert "folds, with" in lines[1]
    assert "1 fold, each proven" not in result.out
    assert_refused(
        run("inspect", *NET, "--node", "wide.7"), "--node wide.7: no operator and no module", "wide.1"
    )
