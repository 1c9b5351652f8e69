"""The door itself: regular files, inside their folder, that stay as they are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.loading.door import files
from reparamkit.loading.door.files import (
    companion,
    inside,
    parse_json,
    read_bytes,
    regular,
    regular_folder,
    steady,
)
from reparamkit.loading.door.memory import amount, check_room, free_bytes


def test_what_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "to pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # A socket's address may have 108 bytes, which pytest's folders exceed.
        monkeypatch.chdir(tmp_path)
        listening.bind("socket")
        for name, words in [
            ("pipe", "is a pipe, no regular file"),
            ("to pipe", "is a pipe, no regular file"),
            ("folder.onnx", "is a folder where a file is needed"),
            ("device", "is a device, no regular file"),
            ("socket", "is a socket, no regular file"),
            ("dangling", "is a link to gone, which does not exist"),
            ("circle", "it is a link that leads in a circle"),
            ("gone", "cannot be read: No such file"),
            ("x" * 5000, "cannot be read: File name too long"),
            ("a\0b", "its name holds a zero byte"),
        ]:
            for opening in (regular, read_bytes):
                with pytest.raises(UnusableInput) as raised:
                    opening(tmp_path / name)
                assert words in str(raised.value)


def test_names_of_odd_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"net\xff\xfe\n.bin")
    path.write_bytes(b"content")
    assert read_bytes(path) == b"content"


def test_a_pipe_that_takes_a_file_s_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is regular when it is looked at, and a pipe when it is opened: nothing waits."""
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr(files, "regular", lambda path: os.stat(__file__))
    with pytest.raises(UnusableInput, match="was replaced while it was opened"):
        read_bytes(tmp_path / "x")


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    with pytest.raises(UnusableInput, match="changed while it was read"), steady([path]):
        path.write_bytes(b"longer than before")
    with pytest.raises(UnusableInput, match="changed while it was read"), steady([path]):
        path.unlink()
    path.write_bytes(b"one")
    with steady([path, tmp_path / "never there"]):
        pass
    found = os.stat(path)
    path.write_bytes(b"it grows")
    monkeypatch.setattr(files, "regular", lambda path: found)
    with pytest.raises(UnusableInput, match="changed while it was read"):
        read_bytes(path)


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2000))
    with pytest.raises(UnusableInput, match=r"has 2.0 KiB, where 1.0 KiB are more than it can need"):
        read_bytes(tmp_path / "x", 1024)
    assert 0 < free_bytes() < 1 << 50
    with pytest.raises(UnusableInput, match=r"it has 1,048,576 GiB, and .* of memory are free"):
        check_room(1 << 50, "it has")
    assert [amount(size) for size in (100, 5 << 20, 64 << 30)] == ["0.1 KiB", "5 MiB", "64 GiB"]


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[[" * 50_000 + b"]]" * 50_000])
def test_json_that_nests(text: bytes) -> None:
    with pytest.raises(UnusableInput, match="x is damaged: it nests thousands of levels deep"):
        parse_json(text, "x")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"nothing", b"1" * 10_000])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(UnusableInput, match="x is damaged: it is no JSON"):
        parse_json(text, "x")


def test_inside_and_outside(tmp_path: Path, subtests: pytest.Subtests) -> None:
    folder = tmp_path / "net.mlpackage"
    (folder / "Data").mkdir(parents=True)
    (folder / "Data" / "a").write_text("a")
    (tmp_path / "outside").write_text("b")
    (tmp_path / "net.mlpackage2").mkdir()
    (folder / "within").symlink_to("Data/a")
    (folder / "out").symlink_to("../outside")
    (folder / "circle").symlink_to("circle")
    assert inside(folder, folder / "Data" / ".." / "Data" / "a", folder) == (folder / "Data" / "a").resolve()
    assert inside(folder, folder / "within", folder) == (folder / "Data" / "a").resolve()
    for name in ("../outside", "out", "../net.mlpackage2", "/etc/passwd", ".."):
        with subtests.test(name), pytest.raises(UnusableInput, match="names a file outside its own folder"):
            inside(folder, folder / name, folder)
    for name, words in (("none", "No such file"), ("circle", "leads in a circle"), ("a\0", "zero byte")):
        with subtests.test(name), pytest.raises(UnusableInput, match=words):
            inside(folder, folder / name, folder)


def test_a_folder_that_counts_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").symlink_to("a")
    regular_folder(folder)
    (folder / "c").symlink_to("/etc/passwd")
    with pytest.raises(UnusableInput, match="outside its own folder"):
        regular_folder(folder)
    (folder / "c").unlink()
    (folder / "deep").mkdir()
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(UnusableInput, match="is a pipe"):
        regular_folder(folder)
    monkeypatch.setattr(files, "_FILES_IN_A_FOLDER", 2)
    with pytest.raises(UnusableInput, match="holds more than 2 files"):
        regular_folder(folder)


def test_a_second_file_beside_the_first(tmp_path: Path) -> None:
    """As a cache of downloads has it: both are links into another folder."""
    for name in ("blobs", "snapshot", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "1").write_text("model")
    (tmp_path / "blobs" / "2").write_text("weights")
    (tmp_path / "elsewhere" / "3").write_text("secret")
    model = tmp_path / "snapshot" / "net.onnx"
    model.symlink_to("../blobs/1")
    (tmp_path / "snapshot" / "net.data").symlink_to("../blobs/2")
    (tmp_path / "snapshot" / "own").write_text("own")
    (tmp_path / "snapshot" / "secret").symlink_to("../elsewhere/3")
    assert companion(model, "net.data").read_text() == "weights"
    assert companion(model, "own").read_text() == "own"
    with pytest.raises(UnusableInput, match="outside its own folder"):
        companion(model, "secret")
    with pytest.raises(UnusableInput, match="No such file"):
        companion(model, "none")
