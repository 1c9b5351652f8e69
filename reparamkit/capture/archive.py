"""The zip archives in which torch keeps models, looked at before anything in them is loaded.

A record is read with the reader that torch's own loaders use, so what was looked at is what gets loaded:
Python's zip reader serves only to see sizes and names first, and where the two readers disagree the archive
is refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reparamkit.errors import UnusableInput

_MIB = 1 << 20
_EXPANSION_FLOOR = 64 * _MIB
_EXPANSION_RATIO = 100


@dataclass(frozen=True)
class Archive:
    """A zip archive with sane entries.

    `records` are the names of its files, without `root`, the one folder that torch puts them all in; `root`
    is empty for the ``.pt2`` of torch before 2.8, whose files lie at the top.
    """

    path: Path
    root: str
    records: tuple[str, ...]

    def read(self, record: str) -> bytes:
        """The bytes of one record; raises `UnusableInput` where they are damaged."""
        try:
            if self.root:
                with _torch_reader(self.path) as reader:
                    return reader.get_record(record)
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(record)
        except (RuntimeError, zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
            raise UnusableInput(
                f"{self.path} is damaged: its entry {record!r} cannot be read. Copy or export it again"
            ) from error


def open_archive(path: Path) -> Archive:
    """The zip archive at `path`, its names and declared sizes checked and nothing of it decompressed.

    Raises `UnusableInput` for an archive that is truncated, empty or encrypted, that would expand a
    hundredfold, or whose entries repeat a name, overlap, leave their folder, or look different to torch's
    reader.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise UnusableInput(
            f"{path} begins like a zip archive but its directory is missing or damaged: the file is "
            f"truncated or was changed. Copy, download or export it again"
        ) from error
    files = [entry for entry in entries if not entry.is_dir()]
    if not files:
        raise UnusableInput(f"{path} is a zip archive without a file in it; give the file of a model")
    _check_sizes(path, files)
    names = [entry.filename for entry in files]
    _check_names(path, names)
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or not all("/" in name for name in names):
        return Archive(path, "", tuple(names))
    root = roots.pop()
    records = tuple(name.removeprefix(f"{root}/") for name in names)
    try:
        with _torch_reader(path) as reader:
            listed = reader.get_all_records()
    except RuntimeError as error:
        if "version" in records or ".data/version" in records:
            raise UnusableInput(
                f"{path} is an archive that torch cannot read: {str(error).splitlines()[0]}. Copy or "
                f"export it again"
            ) from error
        return Archive(path, root, records)
    if {record for record in listed if not record.endswith("/")} != set(records):
        raise UnusableInput(
            f"{path} holds two different lists of its entries, as a tampered archive does; nothing of it "
            f"was loaded"
        )
    return Archive(path, root, records)


@contextmanager
def _torch_reader(path: Path) -> Iterator[torch._C.PyTorchFileReader]:
    """torch's reader, handed the open file: it takes no name that is not UTF-8."""
    with path.open("rb") as file:
        yield torch._C.PyTorchFileReader(file)


def _check_sizes(path: Path, files: list[zipfile.ZipInfo]) -> None:
    on_disk = path.stat().st_size
    declared = sum(entry.file_size for entry in files)
    if declared > _EXPANSION_FLOOR and declared > _EXPANSION_RATIO * on_disk:
        raise UnusableInput(
            f"{path} would expand from {_amount(on_disk)} to {_amount(declared)}, as a zip bomb does; torch "
            f"stores its weights uncompressed. Nothing was decompressed; give the file that torch wrote"
        )
    if sum(entry.compress_size for entry in files) > on_disk:
        raise UnusableInput(
            f"{path} declares entries that overlap or reach beyond the file's end: it is truncated or "
            f"tampered with. Copy or export it again"
        )
    for entry in files:
        if entry.flag_bits & 0x1:
            raise UnusableInput(f"{path} is encrypted (entry {entry.filename!r}); decrypt it first")
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise UnusableInput(
                f"{path} is damaged: its entry {entry.filename!r} declares two different sizes. "
                f"Copy or export it again"
            )


def _check_names(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        # torch's reader looks names up without regard to case
        if name.lower() in seen:
            raise UnusableInput(
                f"{path} holds two entries of the name {name!r}, so what is checked need not be what is "
                f"loaded; nothing of it was loaded. Export it again"
            )
        seen.add(name.lower())
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise UnusableInput(
                f"{path} holds an entry that leaves its folder, {name!r}; nothing of it was loaded. Export "
                f"it again"
            )


def _amount(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB" if size >= _MIB else f"{size / 1024:,.1f} KiB"
