"""NumPy's files: only what is there is read, and only as much as there is room for."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reparamkit.errors import UnusableInput
from reparamkit.loading.door import memory
from reparamkit.loading.door.arrays import read_npy, read_npz


def _npy(header: str, data: bytes = b"\0" * 64, version: bytes = b"\x01\x00") -> bytes:
    packed = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(packed))
    return b"\x93NUMPY" + version + size + packed + data


def _header(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_npy(_header(f"({1 << 45},)")), "takes 140,737,488,355,328 bytes, and 64 are there"),
        (_npy(_header(f"({1 << 62}, {1 << 62}, 4)")), "and 64 are there"),
        (_npy(_header("(15,)")), "takes 60 bytes, and 64 are there"),
        (_npy(_header("(17,)")), "takes 68 bytes, and 64 are there"),
        (_npy(_header("(-16,)")), "its shape cannot be"),
        (_npy(_header("(True, 16)")), "its shape cannot be"),
        (_npy(_header("(" + "1, " * 80 + "16)")), "its shape cannot be"),
        (_npy(_header("(16,)", "'|O'")), "holds Python objects"),
        (_npy(_header("(1,)", "'<U16'")), "has the type <U16"),
        (_npy(_header("(16,)", "('<f4', (1099511627776,))")), "its header cannot be read"),
        (_npy(_header("(16,)", "('<f4', (5,))")), "has the type"),
        (_npy(_header("(16,)", "[('a', '<f4')]")), "has the type"),
        (_npy(_header("(16,)"), version=b"\x03\x00"), "holds structured values"),
        (_npy("[" * 9000), "its header cannot be read"),
        (_npy("[" * 60_000), "its header cannot be read"),
        (_npy("{'shape': (((((" + "\n"), "its header cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "its header cannot be read"),
        (b"\x93NUMPY", "its header cannot be read"),
        (b"", "is no NumPy file"),
        (b"PK\x03\x04", "is no NumPy file"),
    ],
)
def test_an_array_that_cannot_be(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(UnusableInput) as raised:
        read_npy(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|b1", "<i8", "|u1", "<c8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_what_numpy_writes_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for array in (values, np.asfortranarray(values)):
        np.save(tmp_path / "x.npy", array)
        np.savez(tmp_path / "x.npz", a=array)
        np.savez_compressed(tmp_path / "y.npz", a=array)
        for found in (
            read_npy(tmp_path / "x.npy"),
            read_npz(tmp_path / "x.npz")["a"],
            read_npz(tmp_path / "y.npz")["a"],
        ):
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert np.array_equal(found, array)


def _archive(path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in entries:
            archive.writestr(name, content)
    return path


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ONE = _saved(np.ones(16, np.float32))


@pytest.mark.parametrize(
    ("entries", "method", "words"),
    [
        ([("a.npy", _saved(np.zeros(100_000_000, np.uint8)))], zipfile.ZIP_DEFLATED, "as a zip bomb does"),
        ([("a.npy", ONE)], zipfile.ZIP_LZMA, "is packed by a method"),
        ([("a.npy", ONE)], zipfile.ZIP_BZIP2, "is packed by a method"),
        ([("a.npy", ONE), ("a.npy", ONE)], zipfile.ZIP_STORED, "two entries of the name 'a.npy'"),
        ([("../a.npy", ONE)], zipfile.ZIP_STORED, "an entry that leaves its folder"),
        ([("/a.npy", ONE)], zipfile.ZIP_STORED, "an entry that leaves its folder"),
        ([("a.txt", ONE)], zipfile.ZIP_STORED, "its entry 'a.txt' is no array"),
        ([("a.npy", _npy(_header(f"({1 << 45},)")))], zipfile.ZIP_DEFLATED, "and 64 are there"),
        ([("a.npy", _saved(np.array(["x"])))], zipfile.ZIP_STORED, "has the type <U1"),
    ],
)
def test_an_archive_that_cannot_be(
    tmp_path: Path, entries: list[tuple[str, bytes]], method: int, words: str
) -> None:
    with pytest.raises(UnusableInput) as raised:
        read_npz(_archive(tmp_path / "x.npz", entries, method))
    assert words in str(raised.value)


def _directory(path: Path, offset: int, value: int) -> None:
    """Change four bytes of the first entry in the directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (24, 1 << 31, "would expand from"),  # unpacked size
        (20, 1 << 31, "overlap or reach beyond"),  # packed size
        (42, 0, "overlap or reach beyond"),  # place of the second
        (16, 12345, "is damaged"),  # checksum
    ],
)
def test_a_directory_that_lies(tmp_path: Path, offset: int, value: int, words: str) -> None:
    path = _archive(tmp_path / "x.npz", [("a.npy", ONE), ("b.npy", ONE)])
    if offset == 42:
        content = bytearray(path.read_bytes())
        second = content.rindex(b"PK\x01\x02")
        struct.pack_into("<I", content, second + offset, 4)
        path.write_bytes(bytes(content))
    else:
        _directory(path, offset, value)
    with pytest.raises(UnusableInput, match=words):
        read_npz(path)


def test_an_entry_without_a_name_and_too_many_of_them(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x.npz", [("a.npy", ONE)])
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    many = bytearray(content)
    struct.pack_into("<H", many, end + 10, 0xFFFF)
    wide = b"PK\x06\x06" + bytes(28) + struct.pack("<QQQ", 1 << 40, 1, 1)
    path.write_bytes(bytes(many[:end]) + wide + bytes(many[end:]))
    with pytest.raises(UnusableInput, match=r"declares 1,099,511,627,776 entries"):
        read_npz(path)
    path.write_bytes(content.replace(b"a.npy", b"\0.npy"))
    with pytest.raises(UnusableInput, match="an entry without a name"):
        read_npz(path)


def test_memory_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros(20 << 20, np.uint8))
    np.savez(tmp_path / "x.npz", a=np.zeros(20 << 20, np.uint8))
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 << 20)
    with pytest.raises(UnusableInput, match=r"declares an array of 20 MiB, and 10 MiB of memory are free"):
        read_npy(tmp_path / "x.npy")
    with pytest.raises(UnusableInput, match=r"expands to 20 MiB, and 10 MiB of memory are free"):
        read_npz(tmp_path / "x.npz")
