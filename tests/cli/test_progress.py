"""Progress on a terminal, silence elsewhere, times where they are asked for."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import HERE, ROOT, SHAPE, Run

NET = f"{HERE}:branchy"
FOLD = ("fold", NET, "--input", SHAPE, "-o", "net.pt2")


def on_terminal(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Status, stdout, and what a terminal behind stderr was sent."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120", **environment}
    with open(folder / "stdout.txt", "wb") as out:
        started = subprocess.Popen(
            [sys.executable, "-m", "reparamkit", *arguments],
            cwd=folder,
            env=variables,
            stdout=out,
            stderr=theirs,
        )
    os.close(theirs)
    sent = b""
    try:
        while piece := os.read(ours, 65536):
            sent += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return started.wait(timeout=60), (folder / "stdout.txt").read_text(), sent.decode()


def lines_left(sent: str) -> list[str]:
    """What stays on the screen: what was drawn over is gone, and so is the line with the spinner."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    lines = [line.rpartition("\r")[2].strip() for line in plain.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if not re.match("[\u2800-\u28ff]", line)]


def test_on_a_terminal(tmp_path: Path) -> None:
    status, out, sent = on_terminal(tmp_path, *FOLD, NO_COLOR="1")
    assert status == 0
    assert "1 fold, each proven" in out
    left = [line for line in lines_left(sent) if line]
    steps = [f"opening {NET}", "capturing", "folding", "verifying", "net.pt2"]
    for line, (number, name) in zip(left, enumerate(steps, 1), strict=False):
        assert re.fullmatch(rf"{number}/5 {re.escape(name)}  \d+\.\d s", line), left
    assert re.fullmatch(r"\d+\.\d s in all: [a-z].* \d+\.\d s", left[-1]), left
    assert len(left) == 6
    assert "1/5 opening" in sent
    assert re.search(r"importing torch … \d s", sent)
    colours = [code for code in re.findall(r"\x1b\[([0-9;]*)m", sent) if re.search(r"(^|;)[34]\d", code)]
    assert colours == [], "NO_COLOR is heeded"


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "terminal"), [("--quiet", "xterm"), ("-q", "xterm"), ("--strict", "dumb")])
def test_quiet_on_a_terminal(tmp_path: Path, flag: str, terminal: str) -> None:
    status, out, sent = on_terminal(tmp_path, *FOLD, flag, TERM=terminal)
    assert status == 0
    assert bool(out) == (flag == "--strict")
    assert sent == ""
    status, _, sent = on_terminal(tmp_path, "fold", "nowhere.pt", flag, TERM=terminal)
    assert status == 2
    assert "reparamkit: error: no such file 'nowhere.pt'" in sent


def test_elsewhere_nothing_is_said(run: Run) -> None:
    for command in (FOLD, ("inspect", *FOLD[1:4]), ("check", NET, NET, *FOLD[2:4])):
        result = run(*command)
        assert result.status == 0, result.err
        assert result.err == ""


def test_times_of_all_parts(run: Run) -> None:
    result = run(*FOLD, "--verbose")
    assert result.status == 0
    first, *rows = result.err.splitlines()
    assert re.fullmatch(r"\d+\.\d s in all", first)
    names = [row.strip().rpartition("  ")[0].strip() for row in rows]
    assert [name for name, row in zip(names, rows, strict=True) if not row.startswith("    ")] == [
        f"opening {NET}",
        "capturing",
        "folding",
        "verifying",
        "net.pt2",
    ]
    assert all(re.fullmatch(r" +\S.* +\d+\.\d\d s", row) for row in rows)
    assert run("inspect", *FOLD[1:4], "-v").err.splitlines()[1].startswith(f"  opening {NET}")


def test_times_in_the_json_report(run: Run, tmp_path: Path) -> None:
    assert run(*FOLD, "--json", "r.json").status == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["schema"] == 1
    phases = report["seconds"]["phases"]
    assert {"capturing", "folding", "folding / proofs", "verifying / reference", "net.pt2 / verify"} <= set(
        phases
    )
    outer = [seconds for name, seconds in phases.items() if " / " not in name]
    assert 0 < sum(outer) <= report["seconds"]["total"] + 0.01
    parts = sum(seconds for name, seconds in phases.items() if name.count(" / ") == 1)
    assert parts <= sum(outer) + 0.01


@pytest.mark.slow
def test_a_check(tmp_path: Path) -> None:
    sides = ("tests.cli.test_check:net", "tests.cli.test_check:wrong")
    status, out, sent = on_terminal(tmp_path, "check", *sides, "--input", "1x3x12x10")
    assert status == 1
    assert out.startswith("DIFFERENT")
    left = lines_left(sent)
    assert any(re.match(rf"1/5 opening {re.escape(sides[0])}  ", line) for line in left), left
    assert any(
        line.startswith(f"5/5 looking for the place where {sides[1]} first differs  ") for line in left
    )


@pytest.mark.slow
def test_a_network_in_parts(tmp_path: Path) -> None:
    status, _, sent = on_terminal(tmp_path, "fold", f"{HERE}:choosy_norms", "--input", SHAPE)
    assert status == 0
    assert any(re.fullmatch(r"\d/\d folding part by part  \d+\.\d s", line) for line in lines_left(sent))
