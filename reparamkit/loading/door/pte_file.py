"""An ExecuTorch program (`.pte`), held to what its header declares before the runtime sees it.

A flatbuffer, whose identifier is "ET" and two digits, with a header of its own behind the first eight bytes:
the size of the flatbuffer, and where the segments of weights begin and, in newer files, how long they are.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened, regular
from reparamkit.loading.door.memory import amount, check_room

IDENTIFIER = re.compile(rb"ET\d\d")
HEADER = struct.Struct("<4sIQQ")
"""Magic, length of the header, size of the flatbuffer, where the segments begin (0 for none)."""
HEADER_AT = 8
MAGIC = b"eh00"
_LEAST = HEADER_AT + HEADER.size
_SEGMENTS = struct.Struct("<Q")


def check_pte(path: Path) -> list[Path]:
    """Find out whether a file is an ExecuTorch program that is as long as it declares.

    Returns:
        The files that it consists of.

    Raises:
        UnusableInput: it is damaged, cut short, or something else.
    """
    size = regular(path).st_size
    if size == 0:
        raise UnusableInput(f"{path} is empty (0 bytes); copy, download or export it again")
    with opened(path) as file:
        head = file.read(_LEAST + _SEGMENTS.size)
    if not IDENTIFIER.fullmatch(head[4:8]):
        raise UnusableInput(
            f"{path} is damaged or no ExecuTorch program (its first bytes are {head[:8].hex(' ')}); copy, "
            "download or export it again"
        )
    check_room(2 * size, f"{path} and a copy of it take")
    if len(head) < _LEAST or head[HEADER_AT : HEADER_AT + 4] != MAGIC:
        return [path]
    _, length, program, segments = HEADER.unpack_from(head, HEADER_AT)
    declared = program
    if segments:
        declared = segments
        if length >= HEADER.size + _SEGMENTS.size and len(head) == _LEAST + _SEGMENTS.size:
            declared += _SEGMENTS.unpack_from(head, _LEAST)[0]
    if max(program, declared) > size or (segments and program > segments):
        raise UnusableInput(
            f"{path} is damaged or cut short: it declares {amount(declared)} and has {amount(size)}; copy, "
            "download or export it again"
        )
    return [path]
