"""A pickle's stream, read for its sizes: how deep it nests, what it stores, which storages it asks for.

The reader of TorchScript is written in C++ and believes what it reads: it makes room for the number of a memo
entry before there is one, builds what nests a million deep and falls over it, and takes a storage's length
from the stream, not from the file, so that a tensor reads what lies behind it in memory. A pickle is a
program for a stack, so its stack is played through here with depths in place of values.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from reparamkit.errors import UnusableInput

_DEEPEST = 1000
_LARGEST = 100_000_000
"""Values, those that are reached by several ways counted as often: more cannot be written out."""
_MEMO_READS = {"GET", "BINGET", "LONG_BINGET"}
_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT"}
_BYTES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}
_STORAGE = 5
_CHANGE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""They change their first value and leave it; the others make a new one."""


@dataclass(slots=True)
class _Value:
    """What lies on the stack: a number, a text or a class as it is, the rest by its depth and its weight."""

    depth: int = 0
    weight: int = 1
    plain: Any = None
    parts: tuple[_Value, ...] = ()
    held: bool = False


_MARK = _Value()


def survey(file: IO[bytes], size: int, where: str, records: Mapping[str, int] | None = None) -> None:
    """Find out whether the pickle that begins here stays within bounds, and move behind it.

    Args:
        file: at the pickle's beginning.
        size: the bytes from the file's beginning to its end.
        where: the file and the place in it, for messages.
        records: in a TorchScript archive, the bytes of each storage by its key.

    Raises:
        UnusableInput: it is no pickle, nests too deep, or refers to storages that are not there.
    """
    try:
        _play(_Bounded(file, size), size, where, records)
    except UnusableInput:
        raise
    except Exception as error:
        raise UnusableInput(f"{where} is damaged: it is no whole pickle. Save it again") from error


class _Bounded:
    """A file that refuses to read beyond its end, where others would make room first."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        if count > 64 and count > self._size - self._file.tell():
            raise ValueError("the end")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(1 << 16)


def _play(file: _Bounded, size: int, where: str, records: Mapping[str, int] | None) -> None:
    stack: list[_Value] = []
    memo: dict[int, _Value] = {}
    grown = 0
    for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
        name = opcode.name
        if name in _MEMO_WRITES or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else int(str(argument))
            if place > size:
                raise UnusableInput(f"{where} is damaged: it remembers more values than it has bytes")
            memo[place] = stack[-1]
            continue
        if name in _MEMO_READS:
            stack.append(memo[int(str(argument))])
            continue
        if name == "DUP":
            stack.append(stack[-1])
            continue
        taken = _taken(stack, opcode)
        if name in ("BINPERSID", "PERSID"):
            _check_storage(taken, where, records)
        if not opcode.stack_after:
            continue
        if name == "MARK":
            stack.append(_MARK)
            continue
        value = taken[0] if name in _CHANGE else _made(name, argument, taken)
        if name in _CHANGE:
            grown += _change(value, taken[1:])
        if value.depth + grown > _DEEPEST:
            raise UnusableInput(f"{where} nests more than {_DEEPEST} levels deep, as no network does")
        if value.weight > _LARGEST:
            raise UnusableInput(f"{where} refers to its own values until they are {_LARGEST:,} and more")
        stack.append(value)


def _change(value: _Value, added: list[_Value]) -> int:
    """Put values into one; by how much it came to nest deeper, if others hold it already."""
    before = value.depth
    for each in added:
        value.depth = max(value.depth, each.depth + 1)
        value.weight += each.weight
        each.held = True
    return value.depth - before if value.held else 0


def _taken(stack: list[_Value], opcode: pickletools.OpcodeInfo) -> list[_Value]:
    before = opcode.stack_before
    if pickletools.markobject in before:
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        # What an opcode takes from below its mark comes first.
        below = before.index(pickletools.markobject)
        first = place - below
        if first < 0:
            raise ValueError("too few values")
        taken = [value for value in stack[first:] if value is not _MARK]
        del stack[first:]
        return taken
    count = len(before)
    if count > len(stack):
        raise ValueError("too few values")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _made(name: str, argument: Any, taken: list[_Value]) -> _Value:
    if not taken:
        plain = argument if isinstance(argument, (str, int)) else None
        return _Value(plain=plain)
    for value in taken:
        value.held = True
    deepest = max(value.depth for value in taken)
    weight = 1 + sum(value.weight for value in taken)
    parts = tuple(taken) if name.startswith("TUPLE") and len(taken) == _STORAGE else ()
    return _Value(deepest + 1, weight, None, parts)


def _check_storage(taken: list[_Value], where: str, records: Mapping[str, int] | None) -> None:
    if records is None:
        return
    parts = [value.plain for value in taken[0].parts] if taken else []
    if len(parts) != _STORAGE or not isinstance(parts[4], int) or not isinstance(parts[1], str):
        raise UnusableInput(f"{where} is damaged: it refers to a storage in a way that torch does not")
    kind, key, count = parts[1].rpartition(" ")[2], str(parts[2]), parts[4]
    held = records.get(key, 0)
    if count < 0 or count * _BYTES.get(kind, 1) > held:
        raise UnusableInput(
            f"{where} is damaged: it asks for a storage of {count:,} elements ({kind}), and the file has "
            f"{held:,} bytes of it. Copy or save it again"
        )
