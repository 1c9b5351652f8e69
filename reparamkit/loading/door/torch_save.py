"""Files of ``torch.save``, looked at before torch unpickles them.

Even the reader that runs no code of theirs makes what they describe: a tuple that nests a million deep, which
Python cannot take apart again, a tensor of a trillion elements over one number.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened, regular
from reparamkit.loading.door.memory import check_room
from reparamkit.loading.door.pickle_survey import survey
from reparamkit.loading.door.zips import directory, entries_of

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY_PICKLES = 5
"""Of torch.save before torch 1.6: a magic number, the protocol, the system, the object, its storages."""


def check_saved(path: Path) -> None:
    """Find out whether a file of torch.save stays within bounds; nothing of it is unpickled.

    Raises:
        UnusableInput: it is none, is damaged, or declares more than it can hold.
    """
    size = regular(path).st_size
    check_room(size, f"{path} has")
    with opened(path) as file:
        if file.read(4) != _ZIP:
            file.seek(0)
            _check_legacy(file, size, str(path))
            return
    entries = directory(path)
    with opened(path) as file:
        _check_pickles(file, entries, str(path))


def check_saved_bytes(saved: bytes, where: str) -> None:
    """As `check_saved`, of what lies in memory."""
    file = io.BytesIO(saved)
    if saved.startswith(_ZIP):
        _check_pickles(file, entries_of(file, where), where)
    else:
        _check_legacy(file, len(saved), where)


def _check_pickles(file: io.BufferedReader | io.BytesIO, entries: list[zipfile.ZipInfo], where: str) -> None:
    with zipfile.ZipFile(file) as archive:
        for entry in entries:
            if entry.filename.lower().rpartition("/")[2] != "data.pkl":
                continue
            try:
                stream = archive.read(entry)
            except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
                raise UnusableInput(
                    f"{where} is damaged: its entry {entry.filename!r} cannot be read. Copy or save it again"
                ) from error
            survey(io.BytesIO(stream), len(stream), where)


def _check_legacy(file: io.BufferedReader | io.BytesIO, size: int, where: str) -> None:
    if size == 0:
        raise UnusableInput(f"{where} is empty (0 bytes); copy, download or save it again")
    if file.read(1) != _PICKLE:
        raise UnusableInput(f"{where} is no file of torch.save, or damaged; save the tensors with torch.save")
    file.seek(0)
    for _ in range(_LEGACY_PICKLES):
        survey(file, size, where)
        if file.tell() >= size:
            return
