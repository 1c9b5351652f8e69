"""The table of file formats: a new one is a module with a `Writer`, and a line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import UnusableInput

if TYPE_CHECKING:
    from reparamkit.lower.writer import Writer


@dataclass(frozen=True)
class Format:
    """A kind of file that a network can be written to.

    Attributes:
        suffix: that its files have.
        extra: the extra of reparamkit that brings the packages for it; None where it needs none.
        refuses_sizes: a file can refuse a size of its inputs when it is run. Where it cannot, no axis is
            free in it at which the network is not shown to compute what the file computes.
        whole: it holds the network as one graph, which has to be captured whole.
        module: whose `WRITER` writes and opens it; imported when it is used, so that the table costs nothing.
    """

    suffix: str
    extra: str | None
    refuses_sizes: bool
    whole: bool
    module: str

    @property
    def writer(self) -> Writer:
        """What writes, opens and counts."""
        writer: Writer = importlib.import_module(self.module).WRITER
        return writer


FORMATS = (
    Format(".onnx", "onnx", refuses_sizes=False, whole=True, module="reparamkit.lower.onnx"),
    Format(".mlpackage", "coreml", refuses_sizes=False, whole=True, module="reparamkit.lower.coreml.save"),
    Format(".pt2", None, refuses_sizes=True, whole=True, module="reparamkit.lower.pt2"),
    Format(".pt", None, refuses_sizes=True, whole=False, module="reparamkit.lower.module"),
)

SUFFIXES = tuple(each.suffix for each in FORMATS)


def format_of(path: Path) -> Format:
    """The format that a path asks for by its suffix.

    Raises:
        UnusableInput: there is none, with the list of those that there are.
    """
    for each in FORMATS:
        if each.suffix == path.suffix:
            return each
    asked = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
    raise UnusableInput(
        f"cannot write {path}: it has {asked}, which names no format (supported: {', '.join(SUFFIXES)})"
    )
