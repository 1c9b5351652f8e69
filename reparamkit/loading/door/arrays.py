"""NumPy's files: ``.npy`` and ``.npz``, held to the sizes that they declare.

A header of 60 bytes can declare any shape, and NumPy makes room for it before it looks for the data. Here the
data have to be there: as many bytes as the shape says, no more and no fewer.
"""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened
from reparamkit.loading.door.memory import check_room
from reparamkit.loading.door.zips import directory

Array = np.ndarray[Any, Any]

_HEADER = 1 << 16
_LARGEST_ELEMENT = 16
_MAGIC = b"\x93NUMPY"
_AXES = 64


def read_npy(path: Path) -> Array:
    """The array of an ``.npy``.

    Raises:
        UnusableInput: it is damaged, too large, or holds something else than numbers.
    """
    with opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _array(file, size, str(path))


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of an ``.npz``, by name.

    Raises:
        UnusableInput: it is damaged, too large once it is unpacked, or holds something else than arrays of
            numbers.
    """
    with opened(path) as file:
        if file.read(2) != b"PK":
            raise UnusableInput(f"{path} cannot be read: it is no .npz archive; save it with numpy.savez")
    arrays: dict[str, Array] = {}
    entries = directory(path)
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in entries:
                    if not entry.filename.endswith(".npy"):
                        raise UnusableInput(
                            f"{path} cannot be read: its entry {entry.filename!r} is no array"
                        )
                    with archive.open(entry) as member:
                        name = entry.filename.removesuffix(".npy")
                        arrays[name] = _array(member, entry.file_size, f"{path}, the array {name!r},")
                        # The checksum is compared once the end is reached.
                        member.read(1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise UnusableInput(f"{path} cannot be read: it is damaged ({error}); save it again") from error
    return arrays


def _array(file: IO[bytes], size: int, where: str) -> Array:
    head = file.read(min(size, _HEADER))
    shape, column_major, dtype, start = _header(head, where)
    nbytes = math.prod(shape) * dtype.itemsize
    if start + nbytes != size:
        there = size - start
        raise UnusableInput(
            f"{where} is damaged: its shape {_sizes(shape)} takes {nbytes:,} bytes, and {there:,} are there; "
            f"save it again, one array a file"
        )
    check_room(nbytes, f"{where} declares an array of")
    content = bytearray(head[start:])
    while len(content) < nbytes:
        block = file.read(min(nbytes - len(content), 1 << 24))
        if not block:
            raise UnusableInput(f"{where} is damaged: it ends too early; save it again")
        content += block
    array = np.frombuffer(content, dtype, math.prod(shape))
    return array.reshape(shape, order="F" if column_major else "C")


def _header(head: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the first axis varies fastest, element type, and where the data begin."""
    if not head.startswith(_MAGIC):
        raise UnusableInput(f"{where} cannot be read: it is no NumPy file; save it with numpy.save")
    stream = BytesIO(head)
    try:
        with warnings.catch_warnings():
            # NumPy tells where Python 2 wrote a header.
            warnings.simplefilter("ignore")
            shape, column_major, dtype = _read_header(stream, where)
    except UnusableInput:
        raise
    except Exception as error:  # NumPy reads it as Python, and raises what that raises
        raise UnusableInput(f"{where} is damaged: its header cannot be read; save it again") from error
    if dtype.hasobject:
        raise UnusableInput(f"{where} holds Python objects; save plain arrays of numbers")
    if dtype.kind not in "biufc" or dtype.itemsize > _LARGEST_ELEMENT:
        raise UnusableInput(f"{where} has the type {dtype}, which is no input of a network")
    if len(shape) > _AXES or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
        raise UnusableInput(f"{where} is damaged: its shape cannot be")
    return shape, bool(column_major), dtype, stream.tell()


def _read_header(stream: BytesIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise UnusableInput(f"{where} holds structured values; save plain arrays of numbers")
    shape, column_major, dtype = read[version](stream)  # type: ignore[no-untyped-call]
    return shape, column_major, dtype


def _sizes(shape: tuple[int, ...]) -> str:
    text = "x".join(map(str, shape)) or "of a scalar"
    return text if len(text) <= 80 else f"{text[:80]}…"
