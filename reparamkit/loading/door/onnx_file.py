"""An ONNX file, held to what it declares before ONNX Runtime sees it.

The weights of a large network lie in other files, which the model names by path, offset and length; a path
may lead anywhere. A weight may also declare any shape. So the message is walked from its beginning to its end
(`wire`; the large weights are skipped, not read): every tensor has the bytes that its shape takes, or they
lie in a regular file beside the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import companion, opened, regular
from reparamkit.loading.door.memory import amount, check_room
from reparamkit.loading.door.wire import BYTES, Field, NotAMessage, Pages, fields, numbers

# Which fields of a message are messages again: message -> field number -> message.
_PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DEEPEST = 100
_DIMS, _TYPE, _RAW, _EXTERNAL, _LOCATION = 1, 2, 9, 13, 14
_SPARSE_DIMS = 3
_KEY, _VALUE = 1, 2
_OUTSIDE = 1
# Bits of an element by its number in TensorProto.DataType; 8 is a text.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}
_PER_BYTE = 4
"""The most elements that one byte of a tensor's message can stand for."""


@dataclass
class _Tensor:
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    raw: int | None = None
    external: bool = False
    entries: list[tuple[str, str]] = field(default_factory=list)


def check_onnx(path: Path) -> list[Path]:
    """Find out whether the weights of an ONNX file are where and what it says.

    Returns:
        The files that it consists of, itself first.

    Raises:
        UnusableInput: it is damaged; it declares more than it holds, or than there is memory for; or it names
            a file outside its folder, or one that is not regular.
    """
    regular(path)
    outside: dict[Path, None] = {}
    total = 0
    with opened(path) as file:
        data = Pages(file)
        if data.size == 0:
            raise UnusableInput(f"{path} is empty (0 bytes); copy, download or export it again")
        check_room(data.size, f"{path} has")
        try:
            for tensor, length in _tensors(path, data):
                total += _checked(path, tensor, length, outside)
        except NotAMessage as error:
            raise UnusableInput(
                f"{path} is damaged or no ONNX file (it has {error}); copy, download or export it again"
            ) from error
    check_room(total, f"{path} declares weights of")
    return [path, *outside]


def _tensors(path: Path, data: Pages) -> Iterator[tuple[_Tensor, int]]:
    """Every tensor of the model, with the length of its message."""
    pending = [("model", 0, data.size, 0)]
    while pending:
        message, start, end, depth = pending.pop()
        if depth > _DEEPEST:
            raise NotAMessage("messages nested more than a hundred deep")
        if message == "tensor":
            yield _tensor(data, start, end), end - start
            continue
        for entry in fields(data, start, end):
            part = _PARTS[message].get(entry.number)
            if part is not None:
                if entry.kind != BYTES:
                    raise NotAMessage(f"a {part} that is a number")
                pending.append((part, entry.start, entry.end, depth + 1))
            elif message == "sparse" and entry.number == _SPARSE_DIMS:
                elements = math.prod(numbers(data, entry))
                check_room(8 * elements, f"{path} declares a sparse weight of")


def _tensor(data: Pages, start: int, end: int) -> _Tensor:
    tensor = _Tensor()
    for entry in fields(data, start, end):
        if entry.number == _DIMS:
            tensor.dims += numbers(data, entry)
        elif entry.number == _TYPE:
            tensor.kind = entry.value
        elif entry.number == _RAW:
            tensor.raw = entry.end - entry.start
        elif entry.number == _LOCATION:
            tensor.external |= entry.value == _OUTSIDE
        elif entry.number == _EXTERNAL and entry.kind == BYTES:
            tensor.entries.append(_pair(data, entry))
    return tensor


def _pair(data: Pages, entry: Field) -> tuple[str, str]:
    key = value = ""
    for part in fields(data, entry.start, entry.end):
        if part.kind != BYTES:
            continue
        if part.number == _KEY:
            key = data.text(part)
        elif part.number == _VALUE:
            value = data.text(part)
    return key, value


def _checked(path: Path, tensor: _Tensor, length: int, outside: dict[Path, None]) -> int:
    """The bytes that a tensor takes, after a check that they are there."""
    if any(size < 0 for size in tensor.dims):
        raise NotAMessage("a tensor with a negative size")
    elements = math.prod(tensor.dims)
    bits = _BITS.get(tensor.kind)
    wanted = (elements * bits + 7) // 8 if bits is not None else elements
    if tensor.external:
        _check_external(path, tensor, wanted if bits is not None else 0, outside)
    elif tensor.raw is not None:
        if bits is not None and wanted != tensor.raw:
            raise UnusableInput(
                f"{path} is damaged: a tensor of the shape {_sizes(tensor.dims)} takes {wanted:,} bytes, and "
                f"{tensor.raw:,} are there; export it again"
            )
    elif elements > _PER_BYTE * length:
        raise UnusableInput(
            f"{path} declares a tensor of the shape {_sizes(tensor.dims)} and does not hold its "
            f"{amount(wanted)}; export it again"
        )
    return wanted


def _check_external(path: Path, tensor: _Tensor, wanted: int, outside: dict[Path, None]) -> None:
    names = [value for key, value in tensor.entries if key == "location"]
    if not names:
        raise UnusableInput(f"{path} is damaged: a weight lies in another file, and which one is not said")
    for name in names:
        target = _beside(path, name)
        size = regular(target).st_size
        outside[target] = None
        offset = _amount_of(path, tensor, "offset", 0)
        length = _amount_of(path, tensor, "length", wanted)
        if offset + max(length, wanted) > size or length < wanted:
            raise UnusableInput(
                f"{path} says that {amount(max(length, wanted))} of a weight lie in {name!r} from byte "
                f"{offset:,} on, and that file has {amount(size)}; copy both again"
            )


def _beside(path: Path, name: str) -> Path:
    """The file of weights of that name, which lies beside the model or, where that is a link, beside what it
    leads to."""
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if not name or "\0" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
        raise UnusableInput(
            f"{path} names a file of weights by a path of its own ({name!r}), which is not read"
        )
    if ".." in parts or PureWindowsPath(name).drive:
        raise UnusableInput(
            f"{path} names a file of weights outside its folder ({name!r}), which is not read"
        )
    return companion(path, name)


def _amount_of(path: Path, tensor: _Tensor, key: str, otherwise: int) -> int:
    texts = [value for name, value in tensor.entries if name == key]
    if not texts:
        return otherwise
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in texts):
        raise UnusableInput(f"{path} is damaged: the {key} of a weight in another file is {texts[0][:40]!r}")
    return int(texts[-1])


def _sizes(dims: list[int]) -> str:
    text = "x".join(map(str, dims)) or "of a scalar"
    return text if len(text) <= 80 else f"{text[:80]}…"
