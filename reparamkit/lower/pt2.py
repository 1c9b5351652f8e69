"""The `.pt2` file: torch.export's own archive."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from reparamkit.errors import CannotWrite
from reparamkit.quiet import quiet
from reparamkit.verify.oracle import first_line


def save_pt2(program: ExportedProgram, path: Path) -> None:
    """Write an exported program. Weights lie in the archive as raw bytes, never pickled.

    The archive is made in memory (it takes the file's size once more): torch's writer ends the whole process
    when the disk is full, from C++, where no handler reaches it.

    Raises:
        OSError: the file cannot be written.
        CannotWrite: the program holds something that torch.export has no way to write down.
    """
    archive = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, archive)
    except Exception as error:  # torch's writer has no error of its own
        raise CannotWrite(
            f"cannot write {path}: torch.export cannot write this network down: {first_line(error)}"
        ) from error
    with path.open("wb") as file:
        file.write(archive.getbuffer())


def load_pt2(path: Path) -> ExportedProgram:
    """Read back what `save_pt2` wrote. Only for files of our own: see `reparamkit.capture` for others."""
    with quiet():
        return torch.export.load(str(path))
