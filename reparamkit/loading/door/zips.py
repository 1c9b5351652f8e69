"""The directory of a zip archive, checked before anything in it is unpacked.

An archive is small and what it unpacks to need not be: a deflated stream of zeros grows a thousandfold,
entries that overlap share their bytes, and the directory itself takes ten times its bytes once it is parsed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened
from reparamkit.loading.door.memory import amount, check_room

_EXPANSION_FLOOR = 64 << 20
_EXPANSION_RATIO = 100
_ENTRIES = 200_000
_LOCAL_HEADER = 30
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65_535
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def directory(path: Path) -> list[zipfile.ZipInfo]:
    """The files in the archive at `path`, folders left out; none of them is unpacked.

    Raises `UnusableInput` for an archive that is truncated or encrypted, that would expand a
    hundredfold or beyond the memory there is, or whose entries repeat a name, overlap, or leave their folder.
    """
    with opened(path) as file:
        return entries_of(file, str(path))


def entries_of(file: IO[bytes], where: str) -> list[zipfile.ZipInfo]:
    """As `directory`, of an open file or of what lies in memory; `where` is for messages."""
    size = file.seek(0, 2)
    _check_count(where, file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile has an error of its own and raises others as well
        raise UnusableInput(
            f"{where} begins like a zip archive but its directory is missing or damaged: the file is "
            f"truncated or was changed. Copy, download or export it again"
        ) from error
    file.seek(0)
    if not all(entry.filename for entry in entries):
        raise UnusableInput(f"{where} is damaged: it holds an entry without a name. Copy or export it again")
    files = [entry for entry in entries if not entry.is_dir()]
    _check_sizes(where, files, size)
    _check_names(where, [entry.filename for entry in files])
    return files


def _check_count(where: str, file: IO[bytes], size: int) -> None:
    """The number of entries that the archive's end declares, read without the directory itself."""
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT))
    tail = file.read()
    place = tail.rfind(_END)
    count = int.from_bytes(tail[place + 10 : place + 12], "little") if place >= 0 else 0
    length = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if count == 0xFFFF or length == 0xFFFFFFFF:
        # Of 64 bits, and then the directory is bounded by the file that has to hold it.
        place = tail.rfind(b"PK\x06\x06")
        count = int.from_bytes(tail[place + 32 : place + 40], "little") if place >= 0 else 0
        length = int.from_bytes(tail[place + 40 : place + 48], "little") if place >= 0 else 0
    if max(count, min(length, size) // 500) > _ENTRIES:
        raise UnusableInput(f"{where} declares {count:,} entries, more than a model has; export it again")
    file.seek(0)


def _check_sizes(where: str, files: list[zipfile.ZipInfo], on_disk: int) -> None:
    declared = sum(entry.file_size for entry in files)
    if declared > _EXPANSION_FLOOR and declared > _EXPANSION_RATIO * on_disk:
        raise UnusableInput(
            f"{where} would expand from {amount(on_disk)} to {amount(declared)}, as a zip bomb does. Nothing "
            f"was decompressed; save it uncompressed, as torch.save and numpy.savez do"
        )
    check_room(declared, f"{where} expands to")
    if sum(entry.compress_size for entry in files) > on_disk or _overlap(files, on_disk):
        raise UnusableInput(
            f"{where} declares entries that overlap or reach beyond the file's end: it is truncated or "
            f"tampered with. Copy or export it again"
        )
    for entry in files:
        if entry.flag_bits & 0x1:
            raise UnusableInput(f"{where} is encrypted (entry {entry.filename!r}); decrypt it first")
        if entry.compress_type not in _METHODS:
            raise UnusableInput(
                f"{where} is packed by a method that neither torch nor NumPy writes (entry "
                f"{entry.filename!r}); save it uncompressed"
            )
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise UnusableInput(
                f"{where} is damaged: its entry {entry.filename!r} declares two different sizes. "
                f"Copy or export it again"
            )


def _overlap(files: list[zipfile.ZipInfo], on_disk: int) -> bool:
    in_order = sorted(files, key=lambda entry: entry.header_offset)
    if not files:
        return False
    ends = [*(entry.header_offset for entry in in_order[1:]), on_disk]
    return any(
        entry.header_offset + _LOCAL_HEADER + entry.compress_size > end
        for entry, end in zip(in_order, ends, strict=True)
    )


def _check_names(where: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        # torch's reader looks names up without regard to case
        if name.lower() in seen:
            raise UnusableInput(
                f"{where} holds two entries of the name {name!r}, so what is checked need not be what is "
                f"loaded; nothing of it was loaded. Export it again"
            )
        seen.add(name.lower())
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise UnusableInput(
                f"{where} holds an entry that leaves its folder, {name!r}; nothing of it was loaded. Export "
                f"it again"
            )
