"""Messages of protocol buffers, walked field by field without their definitions.

A message is a sequence of fields: a key (number · 8 + wire type), then a number, four or eight bytes, or a
length and that many bytes, which may be a message again.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_PAGE = 1 << 16


class NotAMessage(ValueError):
    """The bytes end inside a field, or hold a key that no field has."""


class Field(NamedTuple):
    """A field: its number and wire type, the value of a number, and where its content lies."""

    number: int
    kind: int
    value: int
    start: int
    end: int


class Pages:
    """The bytes of an open file, of which only the pages that are looked at are read.

    Attributes:
        size: of the file, in bytes.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._first, self._page = 0, b""

    def byte(self, place: int) -> int:
        within = place - self._first
        if not 0 <= within < len(self._page):
            self._first = place - place % _PAGE
            self._file.seek(self._first)
            self._page = self._file.read(_PAGE)
            within = place - self._first
            if within >= len(self._page):
                raise NotAMessage("the file ends too early")
        return self._page[within]

    def text(self, field: Field, limit: int = 4096) -> str:
        """The content of a field as text, what is no UTF-8 kept as it is.

        Raises:
            NotAMessage: it has more than `limit` bytes.
        """
        if field.end - field.start > limit:
            raise NotAMessage("a name of thousands of letters")
        self._file.seek(field.start)
        return self._file.read(field.end - field.start).decode("utf-8", "surrogateescape")


def fields(data: Pages, start: int, end: int) -> Iterator[Field]:
    """The fields of the message between two places.

    Raises:
        NotAMessage: it is none.
    """
    place = start
    while place < end:
        key, place = number(data, place, end)
        kind = key & 7
        value, content = 0, place
        if kind == VARINT:
            value, place = number(data, place, end)
        elif kind == BYTES:
            length, content = number(data, place, end)
            place = content + length
        elif kind in (FIXED32, FIXED64):
            place += 4 if kind == FIXED32 else 8
        else:
            raise NotAMessage("a field of an unknown kind")
        if place > end or key < 8:
            raise NotAMessage("a field that ends outside its message")
        yield Field(key >> 3, kind, value, content, place)


def numbers(data: Pages, field: Field) -> list[int]:
    """The signed numbers of a repeated field, packed or one by one."""
    if field.kind == VARINT:
        return [_signed(field.value)]
    values, place = [], field.start
    while place < field.end:
        value, place = number(data, place, field.end)
        values.append(_signed(value))
    return values


def number(data: Pages, place: int, end: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data.byte(place)
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise NotAMessage("a number without an end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
