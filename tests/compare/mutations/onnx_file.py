"""An ONNX model as something that can be mutated: its layers, and changed copies of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Change = Callable[[Array], Array]


@dataclass(frozen=True)
class OnnxMutation:
    """One mistake: its kind, its place in words, and the changed copy of a model."""

    kind: str
    where: str
    apply: Callable[[ModelProto], ModelProto]


@dataclass(frozen=True)
class OnnxLayer:
    """A node with constant weights.

    Attributes:
        index: the place of the node in the graph.
        outputs: the axis of the weights that counts output channels.
    """

    index: int
    op_type: str
    weight: str
    bias: str | None
    outputs: int
    groups: int


class OnnxFile:
    """A model, read for its layers.

    Attributes:
        nodes: its nodes.
        shapes: initializer -> shape.
        floats: the names of the float32 initializers.
        layers: the convolutions and matrix products with constant weights.
    """

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[NodeProto] = list(model.graph.node)
        self._initializers = {entry.name: entry for entry in model.graph.initializer}
        self.shapes = {name: tuple(entry.dims) for name, entry in self._initializers.items()}
        self.floats = [
            name for name, entry in self._initializers.items() if entry.data_type == onnx.TensorProto.FLOAT
        ]
        self.layers = [found for at, node in enumerate(self.nodes) if (found := self._layer(at, node))]

    def attribute(self, index: int, name: str, default: Any) -> Any:
        """An attribute of the node at `index`."""
        for entry in self.nodes[index].attribute:
            if entry.name == name:
                return helper.get_attribute_value(entry)
        return default

    def pick(self, random: Random, wanted: Callable[[OnnxLayer], bool]) -> OnnxLayer | None:
        """One of the layers that are wanted."""
        found = [layer for layer in self.layers if wanted(layer)]
        return random.choice(found) if found else None

    def home_of(self, name: str, values: Array) -> tuple[str, tuple[int, ...]] | None:
        """The initializer that holds a tensor of the network, and the order of axes in which it does."""
        for found in [name] if name in self._initializers else self.floats:
            if np.prod(self.shapes[found]) != values.size:
                continue
            stored = numpy_helper.to_array(self._initializers[found])
            for axes in (tuple(range(values.ndim)), tuple(reversed(range(values.ndim)))):
                if np.array_equal(values.transpose(axes).ravel(), stored.ravel()):
                    return found, axes
        return None

    def _layer(self, index: int, node: NodeProto) -> OnnxLayer | None:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in self.floats:
            return None
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in self.floats else None
        groups = self.attribute(index, "group", 1) if node.op_type == "Conv" else 1
        transposed = node.op_type == "Gemm" and self.attribute(index, "transB", 0)
        outputs = 0 if node.op_type == "Conv" or transposed else 1
        return OnnxLayer(index, node.op_type, node.input[1], bias, outputs, groups)


def with_values(kind: str, where: str, changes: dict[str, Change]) -> OnnxMutation:
    """Other numbers in some initializers; a constant that several nodes read changes for all of them."""

    def apply(graph: GraphProto) -> None:
        for entry in graph.initializer:
            if entry.name in changes:
                values = np.ascontiguousarray(changes[entry.name](numpy_helper.to_array(entry).copy()))
                entry.CopyFrom(numpy_helper.from_array(values.astype(np.float32), entry.name))

    return edited(kind, where, apply)


def with_attributes(kind: str, file: OnnxFile, index: int, changes: dict[str, Any]) -> OnnxMutation:
    """Other attributes of one node."""

    def apply(graph: GraphProto) -> None:
        node = graph.node[index]
        kept = [entry for entry in node.attribute if entry.name not in changes]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in changes.items())

    stated = ", ".join(f"{name} {value}" for name, value in changes.items())
    return edited(kind, f"{file.nodes[index].name}: {stated}", apply)


def edited(kind: str, where: str, edit: Callable[[GraphProto], None]) -> OnnxMutation:
    """Any change of the graph."""
    return OnnxMutation(kind, where, partial(_changed_copy, edit=edit))


def scaled(values: Array, *, place: int, factor: float) -> Array:
    """The values with the one at the flat index `place` multiplied."""
    values.ravel()[place] *= np.float32(factor)
    return values


def swapped(values: Array, *, one: int, other: int, axis: int) -> Array:
    """The values with two places along an axis exchanged."""
    order = list(range(values.shape[axis]))
    order[one], order[other] = other, one
    return values.take(order, axis)


def _changed_copy(model: ModelProto, edit: Callable[[GraphProto], None]) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    edit(copied.graph)
    return copied
