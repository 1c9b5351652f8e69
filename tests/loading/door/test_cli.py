"""The command line on files that want more than they are: one line, exit status 2, no wait."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from reparamkit.cli import app as cli
from tests.loading.door.working import Answer, Worker

NETWORK = "tests.loading.door.nets:tiny"


def _package(folder: Path, name: str, manifest: str) -> Path:
    package = folder / f"{name}.mlpackage"
    (package / "Data" / "com").mkdir(parents=True)
    (package / "Manifest.json").write_text(manifest)
    return package


def _manifest(place: str) -> str:
    return json.dumps({"itemInfoEntries": {"A": {"path": place, "name": "m"}}, "rootModelIdentifier": "A"})


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What the command line says to each of the files, in one process under a limit of memory."""
    folder = tmp_path_factory.mktemp("hostile")
    header = str({"descr": "<f4", "fortran_order": False, "shape": (1 << 45,)}).encode() + b"\n"
    (folder / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    )
    np.savez_compressed(folder / "bomb.npz", image=np.zeros((1 << 28,), np.uint8))
    _package(folder, "deep", "[" * 100_000)
    _package(folder, "zero", _manifest("/dev/zero"))
    _package(folder, "outside", _manifest("/etc/passwd"))
    os.mkfifo(_package(folder, "fifo", _manifest("com/f")) / "Data" / "com" / "f")
    os.mkfifo(folder / "pipe.onnx")
    (folder / "circle.pt2").symlink_to("circle.pt2")
    (folder / "folder.onnx").mkdir()
    data = {"huge.npy", "bomb.npz"}
    found = {}
    with Worker() as worker:
        for entry in sorted(folder.iterdir()):
            what = ["--inputs", str(entry)] if entry.name in data else ["--input", "1x3x8x8"]
            candidate = NETWORK if entry.name in data else str(entry)
            found[entry.name] = worker.run(["check", NETWORK, candidate, *what])
            if entry.suffix == ".pt2":
                found["fold"] = worker.run(["fold", str(entry), "--input", "1x3x8x8"])
    return found


@pytest.mark.diagonal(5)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("huge.npy", "takes 140,737,488,355,328 bytes, and 64 are there"),
        ("bomb.npz", "as a zip bomb does"),
        ("deep.mlpackage", "nests thousands of levels deep"),
        ("zero.mlpackage", "names a file outside its own folder"),
        ("outside.mlpackage", "names a file outside its own folder"),
        ("fifo.mlpackage", "is a pipe, no regular file"),
        ("pipe.onnx", "is a pipe, no regular file"),
        ("circle.pt2", "it is a link that leads in a circle"),
        ("fold", "it is a link that leads in a circle"),
        ("folder.onnx", "is a folder where a file is needed"),
    ],
)
def test_it_is_refused_in_one_line(answers: dict[str, Answer], name: str, words: str) -> None:
    answer = answers[name]
    assert answer.status == 2, answer.said
    (line,) = {line for line in answer.said.splitlines() if words in line}
    assert "Traceback" not in answer.said
    assert len(line) < 400
    assert answer.peak < 1_500_000
    assert not {"/etc/passwd", "/dev/zero"} & set(answer.opened)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4 bytes"), 2),
        (RuntimeError("something else"), 3),
    ],
)
def test_memory_that_runs_out_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert ("there is not enough memory" in said) == (status == 2)
    assert ("Traceback" in said) == (status == 3)
