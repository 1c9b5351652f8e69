"""`reparamkit check` in a job of GitHub Actions, and nothing of that outside one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Run
from tests.cli.test_check import NET, SHAPE, WRONG, assert_verdict


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "summary.md"
    path.write_text("# what another step said\n\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("::")]


def test_a_difference_is_annotated_and_put_on_the_page(run: Run, page: Path) -> None:
    result = run("check", NET, WRONG, *SHAPE)
    lines = assert_verdict(result, "DIFFERENT")
    assert commands(result.out) == []
    (said,) = commands(result.err)
    assert said.startswith(
        f"::error title=reparamkit check%3A different::DIFFERENT: {WRONG} against {NET}%0A"
    )
    assert "%0Afirst differs at first (convolution first)" in said
    text = page.read_text()
    assert text.startswith("# what another step said\n\n### ❌ DIFFERENT")
    assert "| output | **fails** |" in text
    assert lines[-1].removeprefix("again: ") in text


def test_the_pages_of_several_steps_follow_each_other(run: Run, page: Path) -> None:
    assert_verdict(run("check", NET, NET, *SHAPE), "SAME")
    result = run("check", NET, "no_such_model", *SHAPE)
    assert_verdict(result, "CANNOT TELL")
    (said,) = commands(result.err)
    assert said.startswith(
        "::error title=reparamkit check%3A cannot tell::CANNOT TELL: no_such_model against "
    )
    heads = [line for line in page.read_text().splitlines() if line.startswith("#")]
    assert [head.split(" ")[1] for head in heads] == ["what", "✅", "⚠️"]


def test_what_ends_a_run_early_is_annotated(run: Run, page: Path) -> None:
    result = run("fold", "no_such_model")
    assert result.status == 2
    (said,) = commands(result.err)
    assert said.startswith("::error title=reparamkit::error: 'no_such_model' is no file and not the name of")


@pytest.mark.parametrize("actions", [None, "false", ""])
def test_outside_a_job_nothing_is_said(
    run: Run, page: Path, monkeypatch: pytest.MonkeyPatch, actions: str | None
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS") if actions is None else monkeypatch.setenv("GITHUB_ACTIONS", actions)
    before = page.read_text()
    assert commands(run("check", NET, WRONG, *SHAPE).err) == []
    assert commands(run("fold", "no_such_model").err) == []
    assert page.read_text() == before


def test_a_page_that_cannot_be_written_changes_no_verdict(
    run: Run, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page.parent / "gone" / "page.md"))
    result = run("check", NET, NET, *SHAPE)
    assert_verdict(result, "SAME")
    assert "cannot be written: No such file or directory" in commands(result.err)[-1]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    page.write_bytes(b"x" * ((1 << 20) - 10))
    result = run("check", NET, NET, *SHAPE)
    assert_verdict(result, "SAME")
    assert "the summary page is full" in commands(result.err)[-1]
    assert page.stat().st_size == (1 << 20) - 10
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert_verdict(run("check", NET, NET, *SHAPE), "SAME")
