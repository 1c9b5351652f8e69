"""An OpenVINO IR, held to what it declares: the XML of the network and the file of weights beside it.

XML can define names that expand to a thousand times their length, and nest as deep as it is long; an IR does
neither. Its constants say where in the file of weights they lie.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.parsers import expat

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import companion, opened, regular
from reparamkit.loading.door.memory import amount, check_room

_DEEPEST = 200
_ATTRIBUTES = 1 << 20
_BITS = re.compile(r"[a-z]+(\d+)")


def check_ir(path: Path) -> list[Path]:
    """Find out whether an IR is well-formed and its weights lie where it says.

    Returns:
        The files that it consists of.

    Raises:
        UnusableInput: it is damaged, defines names, nests too deep, or has no regular file of weights with
            the constants that it declares.
    """
    size = regular(path).st_size
    if size == 0:
        raise UnusableInput(f"{path} is empty (0 bytes); copy, download or export it again")
    weights = path.with_suffix(".bin")
    if not weights.exists() and not weights.is_symlink():
        raise UnusableInput(f"{path}: the weights {weights.name} are not beside it")
    room = regular(companion(path, weights.name)).st_size
    check_room(4 * size + room, f"{path} and its weights take")
    reader = _Reader(path, weights, room)
    with opened(path) as file:
        reader.read(file.read(size + 1))
    check_room(reader.total, f"{path} declares weights of")
    return [path, weights]


class _Reader:
    """Reads the XML as a stream; nothing of it is kept but the depth and the sum of the constants."""

    def __init__(self, path: Path, weights: Path, room: int) -> None:
        self.path, self.weights, self.room = path, weights, room
        self.depth = self.total = 0

    def read(self, content: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._defines
        parser.StartElementHandler = self._starts
        parser.EndElementHandler = self._ends
        try:
            parser.Parse(content, True)
        except (expat.ExpatError, ValueError) as error:
            raise UnusableInput(
                f"{self.path} is damaged or no OpenVINO IR ({error}); copy, download or export it again"
            ) from error

    def _defines(self, *_: object) -> None:
        raise UnusableInput(
            f"{self.path} defines names of its own (DOCTYPE), which an OpenVINO IR does not and which can "
            f"expand without end; export it again"
        )

    def _starts(self, name: str, attributes: dict[str, str]) -> None:
        if self.depth == 0 and name != "net":
            raise UnusableInput(f"{self.path} is no OpenVINO IR: it is XML of another kind ({name[:40]!r})")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UnusableInput(f"{self.path} is damaged: it nests more than {_DEEPEST} levels deep")
        if any(len(value) > _ATTRIBUTES for value in attributes.values()):
            raise UnusableInput(f"{self.path} is damaged: one of its attributes has a million letters")
        if name == "data" and "offset" in attributes and "size" in attributes:
            self._constant(attributes)

    def _ends(self, name: str) -> None:
        self.depth -= 1

    def _constant(self, attributes: dict[str, str]) -> None:
        offset, size = _whole(attributes["offset"]), _whole(attributes["size"])
        if offset is None or size is None or offset + size > self.room:
            raise UnusableInput(
                f"{self.path} says that a weight of {attributes['size'][:24]} bytes lies in "
                f"{self.weights.name} from byte {attributes['offset'][:24]} on, and that file has "
                f"{amount(self.room)}; copy both again"
            )
        bits = _BITS.fullmatch(attributes.get("element_type", ""))
        shape = [_whole(text.strip()) for text in attributes.get("shape", "").split(",") if text.strip()]
        sizes = [each for each in shape if each is not None]
        if bits and (len(sizes) != len(shape) or (math.prod(sizes) * int(bits[1]) + 7) // 8 != size):
            raise UnusableInput(
                f"{self.path} is damaged: a weight of the shape {attributes.get('shape', '')[:60]!r} does "
                f"not take the {size:,} bytes that it declares; export it again"
            )
        self.total += size


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
