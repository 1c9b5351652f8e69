"""Where in the source each instruction of a TorchScript archive came from, checked before torch reads it.

Beside each file of code lies a pickle of such places, which torch reads when it words an error or converts
the graph. It takes the numbers in it for indices into a table of lines and looks nothing up: one that is too
large ends the process. So they are held against the table here.

    (FORMAT, (line, line, …), ((offset, ((lines, file, first line), start, end), tag), …))
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from reparamkit.errors import UnusableInput

_FORMAT = "FORMAT_WITH_STRING_TABLE"


def check_ranges(stream: bytes, where: str) -> None:
    """Find out whether the places lie inside the text that they refer to.

    Args:
        stream: the pickle; that it nests and remembers within bounds is known already.
        where: the file and the place in it, for messages.

    Raises:
        UnusableInput: they do not, or it holds something else.
    """
    try:
        whole = _Plain(io.BytesIO(stream)).load()
        table = whole[1] if whole and whole[0] == _FORMAT else None
        if table is not None and not all(type(line) is str for line in table):
            raise ValueError("a table of something else")
        for _, place, _ in whole[2] if table is not None else whole:
            source, start, end = place
            length = _length(source, table)
            if not (type(start) is int and type(end) is int and 0 <= start <= end <= length):
                raise ValueError("a place outside its text")
    except Exception as error:  # whatever the stream makes the reader raise
        raise UnusableInput(
            f"{where} is damaged: it names places in the source that are not there. Save it again"
        ) from error


def _length(source: Any, table: Any) -> int:
    """The bytes of the text that a place lies in."""
    lines, file, first = source
    if type(first) is not int:
        raise ValueError("no line")
    if table is None:
        if type(lines) is not str or not (file is None or type(file) is str):
            raise ValueError("no text")
        return len(lines.encode())
    for index in (file, *lines):
        if type(index) is not int or not 0 <= index < len(table):
            raise ValueError("a line outside the table")
    return sum(len(table[index].encode()) for index in lines)


class _Plain(pickle.Unpickler):
    """Reads numbers, texts, tuples and lists; no other class, and nothing is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.jit._pickle", "build_intlist"):
            return list
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a storage")
