"""Files of safetensors and their shards, held to what they declare before a tensor of theirs is made.

    8 bytes    length of the header, little-endian
    header     JSON: name -> dtype, shape, and where its bytes begin and end behind the header
    the rest   the bytes of all tensors, without a gap

The library checks the same (a header of at most 100 MB, no gap, no overlap, sizes that fit the shapes) and
reports it in its own terms; whether there is memory for it is asked here alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import companion, opened, parse_json, read_bytes, regular
from reparamkit.loading.door.memory import check_room

_LONGEST_HEADER = 100_000_000
_LENGTH = 8
_LARGEST_INDEX = 1 << 27
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
}
INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True)
class Entry:
    """A tensor as the header has it; `begin` and `end` are bytes behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes begins as one of safetensors does."""
    return head[_LENGTH : _LENGTH + 1] == b"{" and int.from_bytes(head[:_LENGTH], "little") <= size - _LENGTH


def check_safetensors(path: Path) -> dict[str, Entry]:
    """Every tensor that the file declares.

    Raises:
        UnusableInput: it is damaged or declares more than it holds, or there is no memory for it.
    """
    size = regular(path).st_size
    with opened(path) as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > size - _LENGTH:
            raise _damaged(path, f"its header would take {length:,} bytes of the {size:,} that it has")
        if length > _LONGEST_HEADER:
            raise _damaged(path, f"its header has {length:,} bytes, and {_LONGEST_HEADER:,} are the limit")
        header = parse_json(file.read(length), f"the header of {path}")
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no table of tensors")
    entries = {name: _entry(path, name, told) for name, told in header.items() if name != "__metadata__"}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise _damaged(path, f"the bytes of {_short(name)} begin at {entry.begin:,}, not at {end:,}")
        end = entry.end
    if end != size - _LENGTH - length:
        raise _damaged(path, f"its tensors take {end:,} bytes, and there are {size - _LENGTH - length:,}")
    check_room(end, f"{path} has tensors of")
    return entries


def shards(index: Path) -> dict[str, list[str]]:
    """The files that an index of shards names, each with the tensors that it is to hold.

    Raises:
        UnusableInput: the index is damaged, a file lies outside its folder or is not there.
    """
    told = parse_json(read_bytes(index, _LARGEST_INDEX), str(index))
    names = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(v, str) for v in names.values()):
        raise UnusableInput(f"{index} is no index of shards: it has no weight_map of names to files")
    files: dict[str, list[str]] = {}
    for name, file in names.items():
        files.setdefault(file, []).append(name)
    for file in files:
        try:
            companion(index, file)
        except UnusableInput as error:
            raise UnusableInput(f"{index} names the shard {_short(file)}: {error}") from error
    return files


def _entry(path: Path, name: str, told: Any) -> Entry:
    if not isinstance(told, dict):
        raise _damaged(path, f"its header says nothing of {_short(name)}")
    dtype: Any = told.get("dtype")
    shape: Any = told.get("shape")
    place: Any = told.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(place) or len(place) != 2 or place[0] > place[1]:
        raise _damaged(path, f"shape or place of {_short(name)} are no sizes")
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise UnusableInput(
            f"{path}: {_short(name)} has the type {str(dtype)[:20]!r}, which is not read; save it in float32"
        )
    if math.prod(shape) * bits != (place[1] - place[0]) * 8:
        raise _damaged(
            path, f"{_short(name)} has other bytes than its shape {'x'.join(map(str, shape))} takes"
        )
    return Entry(str(dtype), tuple(shape), place[0], place[1])


def _are_sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(size) is int and 0 <= size < 1 << 62 for size in value)
    )


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")


def _damaged(path: Path, why: str) -> UnusableInput:
    return UnusableInput(f"{path} is damaged: {why}. Copy, download or save it again")
