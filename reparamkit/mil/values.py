"""Constants and declared types out of a program's protobuf messages (MIL.proto) and its file of weights.

That is 64 bytes of header; then for each weight, at an offset that the program names, 64 bytes that say where
its data lie: a mark, the type, the size in bytes, the offset of the data, the unused bits of the last byte.
Source: MILBlob/Blob/StorageFormat.hpp in coremltools.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.loading.door.files import opened
from reparamkit.loading.door.memory import check_room
from reparamkit.mil.graph import Constant, Port, Shape
from reparamkit.mil.types import BY_NUMBER, STRING, MilType, unpack

_UNPACKED = 16
"""The bytes that an element of less than eight bits takes while it is unpacked."""
_MARK = 0xDEADBEEF
_ENTRY = struct.Struct("<IIQQQ")


def port(entry: Any) -> Port:
    """The declaration of a value, from a NamedValueType."""
    if entry.type.WhichOneof("type") != "tensorType":
        return Port(entry.name, None, None)
    tensor = entry.type.tensorType
    kind = BY_NUMBER.get(tensor.dataType)
    return Port(entry.name, _shape(tensor), kind.dtype if kind is not None else None)


def constant(value: Any, weights: Path) -> Constant:
    """What a Value holds.

    Args:
        value: the message.
        weights: the folder of weight files.

    Raises:
        ValueError: its type is unknown here, or the data do not fit it.
        OSError: a file of weights cannot be read.
    """
    if value.type.WhichOneof("type") == "listType":
        return _texts(value)
    if value.type.WhichOneof("type") != "tensorType":
        raise ValueError(f"a constant of the kind {value.type.WhichOneof('type')}")
    tensor = value.type.tensorType
    if tensor.dataType == STRING:
        texts = tuple(value.immediateValue.tensor.strings.values)
        return texts[0] if len(texts) == 1 else texts
    kind = BY_NUMBER.get(tensor.dataType)
    if kind is None or kind.dtype is None:
        raise ValueError(f"a constant of the type {tensor.dataType} of MIL")
    shape = _shape(tensor)
    if any(size is None for size in shape or ()):
        raise ValueError("a constant whose shape is open")
    sizes = tuple(size for size in shape or () if size is not None)
    count = math.prod(sizes)
    if kind.bits < 8:
        check_room(_UNPACKED * count, "a weight takes")
    if value.WhichOneof("value") == "blobFileValue":
        blob = value.blobFileValue
        data = _read_blob(weights / Path(blob.fileName).name, blob.offset, kind, count)
        array = unpack(data, kind, count)
    else:
        array = _immediate(value.immediateValue.tensor, kind, count)
    return torch.from_numpy(array.reshape(sizes))


def _immediate(tensor: Any, kind: MilType, count: int) -> np.ndarray[Any, Any]:
    field = tensor.WhichOneof("value")
    if field is None and count == 0:
        return np.empty(0, kind.held)
    if field == "bytes":
        return unpack(tensor.bytes.values, kind, count)
    with np.errstate(all="ignore"):
        array = np.array(getattr(tensor, field or "").values, kind.held)
    if array.size != count:
        raise ValueError(f"a constant with {array.size} values where its shape has {count}")
    return array


def _texts(value: Any) -> tuple[str, ...]:
    texts: list[str] = []
    for entry in value.immediateValue.list.values:
        tensor = entry.immediateValue.tensor
        texts += [str(each) for each in getattr(tensor, tensor.WhichOneof("value")).values]
    return tuple(texts)


def _shape(tensor: Any) -> Shape | None:
    sizes: list[int | None] = []
    for dimension in tensor.dimensions:
        if dimension.WhichOneof("dimension") == "constant":
            sizes.append(int(dimension.constant.size))
        elif dimension.unknown.variadic:
            return None
        else:
            sizes.append(None)
    return tuple(sizes)


def _read_blob(path: Path, offset: int, kind: MilType, count: int) -> bytes:
    """The bytes of `count` values of a type, whose entry lies at `offset`.

    Raises:
        ValueError: there is no such entry, or it is of another type or size, or the file ends before it.
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        end = file.seek(0, 2)
        if offset > end:
            raise ValueError(f"{path.name} ends before offset {offset}")
        file.seek(offset)
        entry = file.read(_ENTRY.size)
        if len(entry) < _ENTRY.size:
            raise ValueError(f"{path.name} ends before offset {offset}")
        mark, blob, size, start, _ = _ENTRY.unpack(entry)
        if mark != _MARK:
            raise ValueError(f"{path.name} has no weight at offset {offset}")
        if blob != kind.blob or size != (count * kind.bits + 7) // 8:
            raise ValueError(f"the weight at offset {offset} of {path.name} is not {count} x {kind.name}")
        if start + size > end:
            raise ValueError(f"{path.name} is truncated")
        check_room(size, f"{path.name} declares a weight of")
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise ValueError(f"{path.name} is truncated")
    return data
