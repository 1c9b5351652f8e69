"""An ONNX file without its large weights, which are handed to it like inputs.

A session opened from a whole file holds the weights, the file's bytes and often a rearranged copy, and
reading the file holds them twice for a moment. Where many sessions of one file are needed, with other weights
or other outputs, the weights are read once, straight from their places in the file, and the rest is small.

The file is a protobuf message (`reparamkit.loading.door.wire`). The weights lie at graph (7) / initializer
(5) / raw_data (9), and a large one is never anywhere else.
"""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reparamkit.loading.door.wire import BYTES, Field, NotAMessage, Pages, fields, numbers
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
    try:
        with path.open("rb") as file:
            rest, graph = _without(file, weights, read)
    except NotAMessage as error:
        raise ValueError("it is truncated, or no ONNX file") from error
    model = onnx.ModelProto.FromString(rest)
    model.graph.MergeFromString(graph)
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


def _without(file: BufferedReader, weights: Weights, read: bool) -> tuple[bytes, bytes]:
    """What the model holds beside its graph, and the graph without large weights, which go into `weights`."""
    data = Pages(file)
    rest, graph = bytearray(), bytearray()
    begun = 0
    for part in fields(data, 0, data.size):
        if part.number == _GRAPH and part.kind == BYTES:
            inner = part.start
            for entry in fields(data, part.start, part.end):
                weight = None
                if entry.number == _INITIALIZER and entry.kind == BYTES:
                    weight = _large_weights(file, data, entry, read)
                if weight is not None:
                    weights[weight[0]] = weight[1]
                else:
                    graph += _copied(file, inner, entry.end)
                inner = entry.end
        else:
            rest += _copied(file, begun, part.end)
        begun = part.end
    return bytes(rest), bytes(graph)


def _large_weights(file: BufferedReader, data: Pages, tensor: Field, read: bool) -> tuple[str, Any] | None:
    parts = list(fields(data, tensor.start, tensor.end))
    if tensor.end - tensor.start < _LARGE:
        # Weights in another file have a small entry here.
        if any(part.number == _LOCATION and part.value for part in parts):
            raise ValueError("its weights lie in another file")
        return None
    by_number = {part.number: part for part in parts}
    kind, name, raw = (by_number.get(number) for number in (_TYPE, _NAME, _RAW))
    if kind is None or kind.value != _FLOAT or raw is None:
        return None
    called = "" if name is None else data.text(name)
    if not read:
        return called, np.empty(0, dtype="<f4")
    array = np.empty((raw.end - raw.start) // 4, dtype="<f4")
    file.seek(raw.start)
    if file.readinto(array.data) != array.nbytes:
        raise ValueError("it is truncated")
    dims = [size for part in parts if part.number == _DIMS for size in numbers(data, part)]
    return called, array.reshape(dims)


def _copied(file: BufferedReader, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
