"""An ONNX file without its large weights, which are handed to it like inputs.

A session opened from a whole file holds the weights, the file's bytes and often a rearranged copy, and
reading the file holds them twice for a moment. Where many sessions of one file are needed, with other weights
or other outputs, the weights are read once, straight from their places in the file, and the rest is small.

The file is a protobuf message: fields, each a key (number · 8 + wire type) and a value. The weights lie at
graph (7) / initializer (5) / raw_data (9), and a large one is never anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reparamkit.runners.jitter import jitter
from reparamkit.support.memory import give_back

if TYPE_CHECKING:
    import onnx

Weights = dict[str, Any]
"""Name -> array."""

_LARGE = 4 * 4096
"""Bytes; smaller ones may be shapes and settings, which have to be constants."""
_FLOAT = 1
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW, _LOCATION = 1, 2, 8, 9, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BLOCK = 1 << 18


def without_weights(path: Path, *, read: bool = True) -> tuple[onnx.ModelProto, Weights]:
    """The model of a file with its large float32 weights made inputs, and those weights.

    Args:
        read: read the weights; otherwise they are empty arrays.

    Raises:
        Exception: whatever reading the file raises; ValueError where it is no ONNX file, or has its weights
            in another file.
    """
    import onnx

    weights: Weights = {}
    with path.open("rb") as file:
        rest = bytearray()
        for part in _fields(file, path.stat().st_size):
            if part.number == _GRAPH and part.kind == _BYTES:
                graph = _graph_without(file, part, weights, read)
                rest += bytes([_GRAPH << 3 | _BYTES]) + _varint(len(graph)) + graph
            else:
                rest += _copied(file, part)
    model = onnx.ModelProto.FromString(bytes(rest))
    known = {entry.name for entry in model.graph.input}
    for name, array in weights.items():
        if name not in known:
            entry = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(array.shape))
            model.graph.input.append(entry)
    return model, weights


def jittered(model: onnx.ModelProto, weights: Weights, seed: int) -> tuple[onnx.ModelProto, Weights]:
    """Copies of both with every floating-point weight off by a few ulp."""
    import onnx

    generator = torch.Generator().manual_seed(seed)
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copied.graph.initializer:
        values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        if values.is_floating_point():
            moved = jitter(values, generator).numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    moved_weights = {name: array.copy() for name, array in weights.items()}
    for array in moved_weights.values():
        flat = torch.from_numpy(array).view(-1)
        for start in range(0, flat.numel(), _BLOCK):
            block = flat[start : start + _BLOCK]
            block.copy_(jitter(block, generator))
    give_back()
    return copied, moved_weights


@dataclass(frozen=True)
class _Field:
    """A field of a message: where it begins in the file, its value and its end; `value` of a number."""

    number: int
    kind: int
    start: int
    content: int
    end: int
    value: int


def _graph_without(file: BufferedReader, graph: _Field, weights: Weights, read: bool) -> bytes:
    kept = bytearray()
    file.seek(graph.content)
    for part in _fields(file, graph.end):
        if part.number == _INITIALIZER and part.kind == _BYTES:
            weight = _large_weights(file, part, read)
            if weight is not None:
                weights[weight[0]] = weight[1]
                continue
        kept += _copied(file, part)
    return bytes(kept)


def _large_weights(file: BufferedReader, tensor: _Field, read: bool) -> tuple[str, Any] | None:
    if tensor.end - tensor.content < _LARGE:
        # Weights in another file have a small entry here.
        file.seek(tensor.content)
        if any(part.number == _LOCATION and part.value for part in _fields(file, tensor.end)):
            raise ValueError("its weights lie in another file")
        return None
    dims: list[int] = []
    name, kind, raw = "", 0, None
    file.seek(tensor.content)
    for part in _fields(file, tensor.end):
        if part.number == _DIMS and part.kind == _VARINT:
            dims.append(part.value)
        elif part.number == _DIMS:
            file.seek(part.content)
            while file.tell() < part.end:
                dims.append(_read_varint(file))
        elif part.number == _TYPE:
            kind = part.value
        elif part.number == _NAME:
            file.seek(part.content)
            name = file.read(part.end - part.content).decode()
        elif part.number == _RAW:
            raw = part
    if kind != _FLOAT or raw is None:
        return None
    if not read:
        return name, np.empty(0, dtype="<f4")
    array = np.empty((raw.end - raw.content) // 4, dtype="<f4")
    file.seek(raw.content)
    if file.readinto(array.data) != array.nbytes:
        raise ValueError("it is truncated")
    return name, array.reshape(dims)


def _fields(file: BufferedReader, end: int) -> Iterator[_Field]:
    """The fields from here to `end`; the file may be moved in between."""
    start = file.tell()
    while start < end:
        file.seek(start)
        key = _read_varint(file)
        number, kind, value = key >> 3, key & 7, 0
        if kind == _VARINT:
            value = _read_varint(file)
            content = after = file.tell()
        elif kind == _BYTES:
            length = _read_varint(file)
            content = file.tell()
            after = content + length
        elif kind in (_FIXED64, _FIXED32):
            content = file.tell()
            after = content + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError("it is no ONNX file")
        if after > end:
            raise ValueError("it is truncated, or no ONNX file")
        yield _Field(number, kind, start, content, after, value)
        start = after


def _copied(file: BufferedReader, part: _Field) -> bytes:
    file.seek(part.start)
    return file.read(part.end - part.start)


def _read_varint(file: BufferedReader) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is truncated, or no ONNX file")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("it is no ONNX file")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
