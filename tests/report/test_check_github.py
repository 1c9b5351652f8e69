"""What GitHub shows of a check: annotations that its runner reads back as they were meant, and a page."""

from __future__ import annotations

import html
import json
import re
from typing import Any, cast

import pytest

from reparamkit.report.check_document import Document
from reparamkit.report.check_github import MOST, annotation, annotations_of, summary
from tests.compare.files import small, spoilt
from tests.compare.nets import Lambda
from tests.report.test_check_report import document, several

EVIL = "50% | <b>a</b>\r\n::warning::b, c: `d` [e](f) *g*"


def read_back(line: str) -> tuple[str, str, str]:
    """Kind, title and message, as actions/runner takes a line apart (`ActionCommand.TryParseV2`)."""
    assert "\n" not in line
    assert "\r" not in line
    head, _, data = line.removeprefix("::").partition("::")
    kind, _, rest = head.partition(" ")
    properties = dict(pair.split("=", 1) for pair in rest.split(","))

    def decoded(text: str, codes: dict[str, str]) -> str:
        for code, sign in codes.items():
            text = text.replace(code, sign)
        return text

    plain = {"%0D": "\r", "%0A": "\n"}
    title = decoded(properties.pop("title"), {**plain, "%3A": ":", "%2C": ",", "%25": "%"})
    assert not properties
    return kind, title, decoded(data, {**plain, "%25": "%"})


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {
        "same": document(small(), small()),
        "different": document(small(), spoilt()),
        "several": document(Lambda(several), Lambda(several)),
        "nothing": document(small(), "no_such_model"),
    }


def changed(found: Document, **fields: Any) -> Document:
    return cast("Document", {**json.loads(json.dumps(found)), **fields})


@pytest.mark.parametrize("text", ["plain", EVIL, "100%25", "a\nb", "a,b:c=d", "%0A as it stands", ""])
def test_the_runner_reads_what_was_meant(text: str) -> None:
    assert read_back(annotation("error", text, text)) == ("error", text, text)


def test_the_escapes_are_githubs() -> None:
    line = annotation("error", "a: 5%, b", "a: 5%, b\r\nc")
    assert line == "::error title=a%3A 5%25%2C b::a: 5%25, b%0D%0Ac"


def test_a_long_message_is_cut() -> None:
    kind, _, message = read_back(annotation("notice", "t", "%" * 5000))
    assert kind == "notice"
    assert len(message) == 1000
    assert message.endswith("%…")


def test_what_differs_is_an_error_that_says_where(documents: dict[str, Document]) -> None:
    found = documents["different"]
    (line,) = annotations_of(found)
    kind, title, message = read_back(line)
    assert (kind, title) == ("error", "reparamkit check: different")
    assert message.splitlines()[:2] == [f"DIFFERENT: {found['candidate']['name']} against "
                                        f"{found['reference']['name']}", found["reason"]]  # fmt: skip
    assert found["location"] is not None
    assert message.splitlines()[2] == found["location"]["text"]


def test_what_cannot_be_told_is_an_error(documents: dict[str, Document]) -> None:
    (line,) = annotations_of(documents["nothing"])
    assert read_back(line)[:2] == ("error", "reparamkit check: cannot tell")
    assert documents["nothing"]["reason"] in read_back(line)[2]


def test_a_same_is_silent_unless_something_weakens_it(documents: dict[str, Document]) -> None:
    assert annotations_of(changed(documents["same"], notes=[])) == []
    lines = [read_back(line) for line in annotations_of(documents["several"])]
    assert {kind for kind, _, _ in lines} == {"warning"}
    assert any(text.startswith("output constant: ") for _, _, text in lines)
    assert any(text.startswith("output empty: ") for _, _, text in lines)


def test_no_more_than_github_shows(documents: dict[str, Document]) -> None:
    notes = [f"note {number}" for number in range(40)]
    lines = annotations_of(changed(documents["same"], notes=notes))
    assert len(lines) == MOST
    assert read_back(lines[-1])[2] == "31 more notes; the report has them"
    outputs = [{**documents["different"]["outputs"][0], "name": f"o{number}"} for number in range(40)]
    lines = annotations_of(changed(documents["different"], outputs=outputs))
    assert len(lines) == MOST
    assert read_back(lines[1])[2].startswith("output o1[0, ")
    assert read_back(lines[-1])[2] == "31 more outputs fail; the report has them"


@pytest.mark.parametrize("case", ["same", "different", "several", "nothing"])
def test_the_page_has_the_verdict_and_a_table(documents: dict[str, Document], case: str) -> None:
    found = documents[case]
    lines = summary(found).splitlines()
    assert lines[0].startswith("### ")
    assert found["status"].upper() in lines[0]
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == (len(found["outputs"]) + 2 if found["outputs"] else 0)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1
    assert lines[-2] == "Again: <code>reparamkit check a b</code>"
    assert summary(found).endswith("\n\n")


def test_what_fails_comes_first(documents: dict[str, Document]) -> None:
    good = documents["same"]["outputs"][0]
    bad = {**documents["different"]["outputs"][0], "name": "bad"}
    rows = [line for line in summary(changed(documents["different"], outputs=[good, bad])).splitlines()
            if line.startswith("|")]  # fmt: skip
    assert rows[2].startswith("| bad | **fails** |")
    assert rows[3].startswith("| output | passes |")


def test_names_are_only_names(documents: dict[str, Document]) -> None:
    bad = {**documents["different"]["outputs"][0], "name": EVIL}
    side = {**documents["different"]["candidate"], "name": EVIL}
    found = changed(documents["different"], outputs=[bad], candidate=side, reason=EVIL, notes=[EVIL])
    text = summary(found)
    assert "<b>" not in text
    assert not [line for line in text.splitlines() if line.startswith("::")]
    (row,) = [line for line in text.splitlines() if line.startswith("| 50%")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 10
    name = re.split(r"(?<!\\)\|", row)[1].strip()
    assert html.unescape(re.sub(r"\\(.)", r"\1", name)) == " ".join(EVIL.split())
    for line in annotations_of(found):
        assert read_back(line)[0] == "error"
