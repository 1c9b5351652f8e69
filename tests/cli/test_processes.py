"""The command in processes of its own: the exit status, and what goes to which stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from tests.cli.running import HERE, ROOT, SHAPE, Run, assert_same_as_branchy, content, shell
from tests.slow_share import few


@pytest.mark.slow
def test_a_whole_fold_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(f"from {HERE} import branchy as build\n")
    done = shell(tmp_path, f"$R fold my_net:build --input {SHAPE} -o net.onnx --json net.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # progress is for terminals
    lines = done.stdout.splitlines()
    assert lines[0] == "build  (free batch and spatial sizes)"
    assert any(line.split() == ["batch_norm", "3", "0"] for line in lines)
    assert any(line.startswith("1 fold, each proven in float64") for line in lines)
    assert any(line.startswith("whole network: equivalent: error ") for line in lines)
    assert any(line.startswith("net.onnx: equivalent: error ") for line in lines)
    assert {f for f in content(tmp_path) if "__pycache__" not in f} == {"my_net.py", "net.onnx", "net.json"}


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell(tmp_path, "touch empty.pt; $R fold empty.pt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("reparamkit: error: empty.pt is empty (0 bytes)")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_failed_verification_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "spoilt.py").write_text(
        "import sys\n"
        "from reparamkit.cli import app as cli\n"
        "import pytest\n"
        "from tests.spoiling import spoil\n"
        "spoil(pytest.MonkeyPatch())\n"
        "cli.main()\n"
    )
    before = content(tmp_path)
    done = shell(tmp_path, f"{sys.executable} spoilt.py fold {HERE}:branchy --input {SHAPE} -o out.pt2")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "reparamkit: verification failed: the folded network is not equivalent" in done.stderr
    assert content(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("arguments", few(["models", "--help"], "models"))
def test_a_reader_who_leaves_in_processes_of_their_own(tmp_path: Path, arguments: str) -> None:
    done = shell(tmp_path, f"$R {arguments} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.slow
def test_a_full_stdout_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell(tmp_path, "$R models > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "reparamkit: error: the report cannot be written: No space left on device\n"


def lost(kind: str) -> TextIO:
    """A stream of which nothing arrives: its reader has left, or its disk is full."""
    if kind == "full":
        return open("/dev/full", "w")
    ours, theirs = os.pipe()
    os.close(ours)
    return os.fdopen(theirs, "w")


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", ["pipe", "full"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_fold_finishes_though_nobody_reads(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, kind: str
) -> None:
    monkeypatch.setattr(sys, stream, lost(kind))
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2")
    failed = (stream, kind) == ("stdout", "full")
    assert result.status == (2 if failed else 0)
    assert ("the report cannot be written: No space left" in result.err) == failed
    assert_same_as_branchy(tmp_path / "out.pt2")
    getattr(sys, stream).close()


@pytest.mark.parametrize("kind", ["pipe", "full"])
def test_a_complaint_that_nobody_reads(run: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sys, "stderr", lost(kind))
    assert run("fold", "nofile.pt").status == 2
    sys.stderr.close()


@pytest.mark.slow
def test_on_a_terminal_a_source_is_no_markup(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reparamkit.cli.app", "inspect", "a[/red] :warning:"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += (more := os.read(ours, 4096))
            except OSError:  # how Linux ends a terminal
                break
            if not more:
                break
        os.close(ours)
        assert process.wait() == 2
    assert b"no such file 'a[/red] :warning:'" in seen
    assert b"Traceback" not in seen
