"""What is known of a file that was written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from reparamkit.compare.verdict import Equivalence


@dataclass(frozen=True)
class Saved:
    """A file that was written and verified.

    Attributes:
        path: where it lies.
        equivalence: the verdict on the file itself, read back and run.
        operators: how many of each operator it holds (ATen names for `.pt2`, ONNX names for `.onnx`, MIL
            names for `.mlpackage`, classes of layers for `.pt`).
        notes: steps that were left out; usually none.
    """

    path: Path
    equivalence: Equivalence
    operators: Counter[str]
    notes: tuple[str, ...]

    @property
    def size(self) -> int | None:
        """In bytes; of a folder, all that is in it."""
        return size_on_disk(self.path)


def size_on_disk(path: Path) -> int | None:
    """The bytes of a file, or of all files in a folder; None if there is none."""
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except OSError:
        return None
