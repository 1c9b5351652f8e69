"""The file of weights of an .mlpackage.

64 bytes of header; then for each weight, at an offset that the program names, 64 bytes that say where its
data lie: a mark, the type, the size in bytes, the offset of the data, the unused bits of the last byte.
Source: MILBlob/Blob/StorageFormat.hpp in coremltools.
"""

from __future__ import annotations

import struct
from pathlib import Path

from reparamkit.loading.door.files import opened
from reparamkit.loading.door.memory import check_room
from reparamkit.mil.types import MilType

_MARK = 0xDEADBEEF
_ENTRY = struct.Struct("<IIQQQ")


def read_blob(path: Path, offset: int, kind: MilType, count: int) -> bytes:
    """The bytes of `count` values of a type, whose entry lies at `offset`.

    Raises:
        ValueError: there is no such entry, or it is of another type or size, or the file ends before it.
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        end = file.seek(0, 2)
        if offset > end:
            raise ValueError(f"{path.name} ends before offset {offset}")
        file.seek(offset)
        entry = file.read(_ENTRY.size)
        if len(entry) < _ENTRY.size:
            raise ValueError(f"{path.name} ends before offset {offset}")
        mark, blob, size, start, _ = _ENTRY.unpack(entry)
        if mark != _MARK:
            raise ValueError(f"{path.name} has no weight at offset {offset}")
        if blob != kind.blob or size != (count * kind.bits + 7) // 8:
            raise ValueError(f"the weight at offset {offset} of {path.name} is not {count} x {kind.name}")
        if start + size > end:
            raise ValueError(f"{path.name} is truncated")
        check_room(size, f"{path.name} declares a weight of")
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise ValueError(f"{path.name} is truncated")
    return data
