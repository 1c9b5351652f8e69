"""Writing a file: whole and verified, or not at all, with the old one untouched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.lower.files import check_writable, write_verified


def _text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def _assert_written(path: Path) -> None:
    assert path.exists()


def _failing(error: BaseException) -> Callable[[Path], None]:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise error

    return fail


def test_a_file_appears_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    seen: list[Path] = []

    def verify(path: Path) -> None:
        seen.append(path)
        assert path.read_text() == "new"
        assert not target.exists()

    write_verified(target, _text("new"), verify)
    assert target.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.bin"]
    assert seen[0].name == "out.bin"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(errno.ENOSPC, "x"), UnusableInput, "the disk is full; the file that was there is unchanged"),
        (OSError(errno.EDQUOT, "x"), UnusableInput, "quota"),
        (PermissionError(errno.EACCES, "x"), UnusableInput, "permission denied"),
        (OSError(errno.EXDEV, "odd"), OSError, "odd"),
        (NotEquivalent("different"), NotEquivalent, "different"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
@pytest.mark.parametrize("step", ["write", "verify"])
def test_whatever_fails_the_old_file_is_untouched(
    tmp_path: Path, error: BaseException, raised: type[BaseException], words: str, step: str
) -> None:
    target = tmp_path / "out.bin"
    target.write_text("old")
    write, verify = (_failing(error), _assert_written) if step == "write" else (_text("new"), _failing(error))
    with pytest.raises(raised, match=words):
        write_verified(target, write, verify)
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.bin"]


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_disk_that_fills_at_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    target = tmp_path / "out.bin"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(UnusableInput, match=r"cannot write .*out\.bin: the disk is full"):
        write_verified(target, _text("new"), _assert_written)
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.bin"]


def test_a_file_system_without_fsync_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    write_verified(tmp_path / "out.bin", _text("new"), _assert_written)
    assert (tmp_path / "out.bin").read_text() == "new"


def test_unusable_places(tmp_path: Path, subtests: pytest.Subtests) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.bin").mkdir()
    (tmp_path / "own.mlpackage").mkdir()
    (tmp_path / "own.mlpackage" / "notes").write_text("mine")
    protected = tmp_path / "kept.bin"
    protected.write_text("old")
    protected.chmod(0o444)
    for path, words in [
        (tmp_path / "missing" / "out.bin", r"the folder .*missing does not exist"),
        (tmp_path / "file" / "out.bin", r"file is not a folder"),
        (tmp_path / "folder.bin", r"a folder of that name exists"),
        (tmp_path / "own.mlpackage", r"a folder of that name exists, and it is no Core ML package"),
        (protected, r"kept\.bin: the file is write-protected"),
        (Path("/dev/full"), r"it is a device or a pipe"),
        (Path("/"), r"it names no file"),
    ]:
        with subtests.test(str(path)):
            with pytest.raises(UnusableInput, match=words):
                check_writable(path)
            with pytest.raises(UnusableInput, match=words):
                write_verified(path, _text("new"), _assert_written)
    assert protected.read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(UnusableInput, match="permission denied in the folder"):
        write_verified(folder / "out.bin", _text("new"), _assert_written)


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nothing was written under the name out\.bin"):
        write_verified(tmp_path / "out.bin", lambda path: None, _assert_written)
    assert list(tmp_path.iterdir()) == []


def test_companions_move_along(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("graph")
        path.with_name("out.bin.weights").write_text("weights")

    write_verified(tmp_path / "out.bin", write, _assert_written)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.bin", "out.bin.weights"]


def _package(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "Data").mkdir(parents=True)
        (path / "Manifest.json").write_text("{}")
        (path / "Data" / "model").write_text(text)

    return write


def test_a_folder_replaces_an_older_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.mlpackage"
    for text in ("old", "new"):
        write_verified(target, _package(text), _assert_written)
        assert (target / "Data" / "model").read_text() == text
    replace, calls = os.replace, []

    def second_fails(source: str | Path, destination: str | Path) -> None:
        calls.append(destination)
        if len(calls) == 2:
            raise OSError(errno.EIO, "bad disk")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(UnusableInput, match="the disk reports an error"):
        write_verified(target, _package("newest"), _assert_written)
    assert (target / "Data" / "model").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]
