"""Hidden folders: locked while their run lives, removed by the next one when it was killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.lower.files import check_writable, write_text, write_verified
from reparamkit.lower.hidden import LOCK, PREFIX, hidden_folder, remove_leftovers

# Without torch, which `reparamkit.lower` imports and this part of it does not need.
_LIGHT = """
import sys, types
import reparamkit
lower = types.ModuleType("reparamkit.lower")
lower.__path__ = [reparamkit.__path__[0] + "/lower"]
sys.modules["reparamkit.lower"] = lower
"""
_WRITER = f"""{_LIGHT}
import time
from pathlib import Path
from reparamkit.lower.files import write_verified

def write(path):
    if path.suffix == ".mlpackage":
        path.mkdir()
        (path / "Manifest.json").write_text("a package")
        path = path / "content"
    path.write_text("half of it")
    if sys.argv[2] == "while writing":
        wait()

def wait(*_):
    print("now", flush=True)
    time.sleep(60)

if sys.argv[2] == "between two moves":
    import os
    replace = os.replace
    def stopped(source, target):
        replace(source, target)
        if ".old-" in str(target):
            wait()
    os.replace = stopped
write_verified(Path(sys.argv[1]), write, wait if sys.argv[2] == "while verifying" else lambda path: None)
"""


def _start(target: Path, moment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target), moment], stdout=subprocess.PIPE, text=True
    )
    assert isinstance(process.stdout, IO) or process.stdout is not None
    assert process.stdout.readline() == "now\n"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(PREFIX))


@pytest.mark.parametrize("moment", ["while writing", "while verifying"])
@pytest.mark.parametrize("name", ["net.onnx", "net.mlpackage"])
def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path, moment: str, name: str) -> None:
    killed = _start(tmp_path / name, moment)
    assert len(_leftovers(tmp_path)) == 1
    _end(killed)
    assert len(_leftovers(tmp_path)) == 1
    write_text(tmp_path / "other.txt", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.txt"]


def test_a_live_run_keeps_its_folder(tmp_path: Path) -> None:
    living = [_start(tmp_path / name, "while writing") for name in ("a.onnx", "b.onnx")]
    killed = _start(tmp_path / "c.onnx", "while writing")
    _end(killed)
    assert len(_leftovers(tmp_path)) == 3
    very_old = time.time() - 10 * 86_400
    for name in _leftovers(tmp_path):
        for entry in [*(tmp_path / name).iterdir(), tmp_path / name]:
            os.utime(entry, (very_old, very_old))
    write_text(tmp_path / "d.txt", "new")
    left = _leftovers(tmp_path)
    assert len(left) == 2
    assert all((tmp_path / name / LOCK).exists() for name in left)
    for process in living:
        _end(process)
    remove_leftovers(tmp_path)
    assert _leftovers(tmp_path) == []


def test_an_old_package_that_had_stepped_aside_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "net.mlpackage"
    target.mkdir()
    (target / "Manifest.json").write_text("old")
    killed = _start(target, "between two moves")
    assert not target.exists()
    _end(killed)
    write_text(tmp_path / "other.txt", "new")
    assert (target / "Manifest.json").read_text() == "old"
    assert _leftovers(tmp_path) == []


def _leftover(folder: Path, name: str, machine: str | None, age: float) -> Path:
    left = folder / f"{PREFIX}{name}"
    left.mkdir()
    (left / "net.onnx").write_text("half of it")
    if machine is not None:
        (left / LOCK).write_text(json.dumps({"machine": machine, "name": "net.onnx"}))
    for entry in (*left.iterdir(), left):
        os.utime(entry, (time.time() - age, time.time() - age))
    return left


def test_age_decides_where_the_lock_does_not(tmp_path: Path) -> None:
    day = 86_400.0
    kept = [
        _leftover(tmp_path, "aaaaaaaa", "elsewhere", day / 2),
        _leftover(tmp_path, "bbbbbbbb", None, day / 2),
        _leftover(tmp_path, "toolong_name", None, 9 * day),
    ]
    _leftover(tmp_path, "cccccccc", "elsewhere", 2 * day)
    _leftover(tmp_path, "dddddddd", None, 2 * day)
    (tmp_path / f"{PREFIX}eeeeeeee").write_text("a file, which nobody here made")
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}ffffffff").symlink_to("mine")
    remove_leftovers(tmp_path)
    others = [f"{PREFIX}eeeeeeee", f"{PREFIX}ffffffff"]
    assert _leftovers(tmp_path) == sorted([*(entry.name for entry in kept), *others])
    assert (tmp_path / "mine").exists()


def test_a_lock_that_is_taken_in_between_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that sees the folder before its lock takes it for a leftover; then another is made."""
    from reparamkit.lower import hidden

    lock, taken = hidden._lock, list[bool]()

    def raced(handle: int, *, wait: bool) -> bool:
        if not taken:
            taken.append(True)
            for name in _leftovers(tmp_path):
                shutil.rmtree(tmp_path / name)
        return lock(handle, wait=wait)

    monkeypatch.setattr(hidden, "_lock", raced)
    with hidden_folder(tmp_path / "net.onnx") as folder:
        assert folder.exists()
        assert _leftovers(tmp_path) == [folder.name]
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), ImportError("no fcntl")])
def test_a_system_without_locks_writes_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise error

    if isinstance(error, ImportError):
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    write_text(tmp_path / "net.txt", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.txt"]
    _leftover(tmp_path, "aaaaaaaa", "elsewhere", 2 * 86_400)
    write_text(tmp_path / "net.txt", "newer")
    assert (tmp_path / "net.txt").read_text() == "newer"


def test_two_that_write_one_file(tmp_path: Path) -> None:
    writer = f"""{_LIGHT}
from pathlib import Path
from reparamkit.lower.files import write_verified

def write(path):
    path.mkdir()
    (path / "Manifest.json").write_text("a package")
    (path / "a").write_text(sys.argv[2])
    (path / "b").write_text(sys.argv[2])

for _ in range(30):
    write_verified(Path(sys.argv[1]), write, lambda path: None)
"""
    target = tmp_path / "net.mlpackage"
    processes = [
        subprocess.Popen([sys.executable, "-c", writer, str(target), str(number)]) for number in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (target / "a").read_text() == (target / "b").read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, there: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if there:
        (elsewhere / "v1.bin").write_text("old")
    (tmp_path / "second").symlink_to(elsewhere / "v1.bin")
    (tmp_path / "first.onnx").symlink_to("second")
    seen: list[Path] = []

    def write(path: Path) -> None:
        seen.append(path)
        path.write_text("new")

    write_verified(tmp_path / "first.onnx", write, lambda path: None)
    assert seen[0].name == "first.onnx"
    assert os.readlink(tmp_path / "first.onnx") == "second"
    assert (tmp_path / "first.onnx").read_text() == (elsewhere / "v1.bin").read_text() == "new"
    assert not (elsewhere / "v1.bin").is_symlink()
    assert _leftovers(tmp_path) == _leftovers(elsewhere) == []


def test_a_link_to_another_file_system(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    target = other / f"reparamkit-{os.getpid()}.txt"
    (tmp_path / "net.txt").symlink_to(target)
    try:
        write_text(tmp_path / "net.txt", "new")
        assert target.read_text() == "new"
        assert (tmp_path / "net.txt").is_symlink()
    finally:
        target.unlink(missing_ok=True)


def test_a_link_to_a_package(tmp_path: Path) -> None:
    def package(text: str) -> None:
        def write(path: Path) -> None:
            path.mkdir()
            (path / "Manifest.json").write_text(text)

        write_verified(tmp_path / "net.mlpackage", write, lambda path: None)

    (tmp_path / "net.mlpackage").symlink_to("v1.mlpackage")
    for text in ("old", "new"):
        package(text)
        assert (tmp_path / "net.mlpackage").is_symlink()
        assert (tmp_path / "v1.mlpackage" / "Manifest.json").read_text() == text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.mlpackage", "v1.mlpackage"]


def test_links_that_lead_nowhere(tmp_path: Path, subtests: pytest.Subtests) -> None:
    (tmp_path / "circle.txt").symlink_to("other.txt")
    (tmp_path / "other.txt").symlink_to("circle.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "no such folder" / "x.txt")
    (tmp_path / "folder.txt").symlink_to(tmp_path)
    (tmp_path / "device.txt").symlink_to("/dev/null")
    for name, words in [
        ("circle.txt", "it is a link that leads in a circle"),
        ("gone.txt", "the folder .*no such folder does not exist"),
        ("folder.txt", "a folder of that name exists"),
        ("device.txt", "it is a device or a pipe"),
    ]:
        with subtests.test(str(name)):
            with pytest.raises(UnusableInput, match=words):
                check_writable(tmp_path / name)
            with pytest.raises(UnusableInput, match=words):
                write_text(tmp_path / name, "new")
            assert (tmp_path / name).is_symlink()


def test_a_second_file_does_not_go_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "net.onnx").symlink_to("elsewhere/net.onnx")

    def write(path: Path) -> None:
        path.write_text("graph")
        path.with_name("net.onnx.data").write_text("weights")

    with pytest.raises(UnusableInput, match="give the place that the link leads to"):
        write_verified(tmp_path / "net.onnx", write, lambda path: None)
    assert list((tmp_path / "elsewhere").iterdir()) == []
