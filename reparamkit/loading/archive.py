"""The zip archives in which torch keeps models, looked at before anything in them is loaded.

A record is read with the reader that torch's own loaders use, so what was looked at is what gets loaded:
Python's zip reader serves only to see sizes and names first, and where the two readers disagree the archive
is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened
from reparamkit.loading.door.zips import directory

_READER_RAISES = (ArithmeticError, LookupError, RuntimeError, ValueError)
"""What comes out of torch's reader, written in C++, for what it cannot read."""


@dataclass(frozen=True)
class Archive:
    """A zip archive with sane entries.

    `records` are the names of its files, without `root`, the one folder that torch puts them all in; `root`
    is empty for the ``.pt2`` of torch before 2.8, whose files lie at the top. `sizes` are their bytes.
    """

    path: Path
    root: str
    records: tuple[str, ...]
    sizes: Mapping[str, int]

    def read(self, record: str) -> bytes:
        """The bytes of one record; raises `UnusableInput` where they are damaged."""
        try:
            if self.root:
                with _torch_reader(self.path) as reader:
                    return reader.get_record(record)
            with opened(self.path) as file, zipfile.ZipFile(file) as archive:
                return archive.read(record)
        except (*_READER_RAISES, zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
            raise UnusableInput(
                f"{self.path} is damaged: its entry {record!r} cannot be read. Copy or export it again"
            ) from error


def open_archive(path: Path) -> Archive:
    """The zip archive at `path`, its names and declared sizes checked and nothing of it decompressed.

    Raises `UnusableInput` for an archive that is truncated, empty or encrypted, that would expand a
    hundredfold, or whose entries repeat a name, overlap, leave their folder, or look different to torch's
    reader.
    """
    files = directory(path)
    if not files:
        raise UnusableInput(f"{path} is a zip archive without a file in it; give the file of a model")
    names = [entry.filename for entry in files]
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or not all("/" in name for name in names):
        return Archive(path, "", tuple(names), {entry.filename: entry.file_size for entry in files})
    root = roots.pop()
    sizes = {entry.filename.removeprefix(f"{root}/"): entry.file_size for entry in files}
    try:
        with _torch_reader(path) as reader:
            listed = reader.get_all_records()
    except _READER_RAISES as error:
        if "version" in sizes or ".data/version" in sizes:
            raise UnusableInput(
                f"{path} is an archive that torch cannot read: {str(error).splitlines()[0]}. Copy or "
                f"export it again"
            ) from error
        return Archive(path, root, tuple(sizes), sizes)
    if {record for record in listed if not record.endswith("/")} != set(sizes):
        raise UnusableInput(
            f"{path} holds two different lists of its entries, as a tampered archive does; nothing of it "
            f"was loaded"
        )
    return Archive(path, root, tuple(sizes), sizes)


@contextmanager
def _torch_reader(path: Path) -> Iterator[torch._C.PyTorchFileReader]:
    """torch's reader, handed the open file: it takes no name that is not UTF-8."""
    with opened(path) as file:
        yield torch._C.PyTorchFileReader(file)
