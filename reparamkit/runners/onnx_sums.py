"""An ONNX model whose sums over axes are taken in float64, between values that are float32 as before.

How far that is from the model as it is, is what its own sums are off by: no order of adding up is the file's.
Averages over windows, of which ONNX Runtime has no float64 kernel, are taken along one axis after the other:
the divisor is a product of one number for each axis, padding counted or not, and no sum is a long one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

_SUMS = frozenset(
    {
        *("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),
        *("ReduceLogSumExp", "Softmax", "LogSoftmax", "LpNormalization"),
    }
)
"""Operators of which ONNX Runtime has a float64 kernel, with one value and one result."""
_WITH_FACTORS = frozenset({"LayerNormalization", "RMSNormalization"})
"""As `_SUMS`, with factors of the same type behind the value."""
_POOL, _INSTANCE = "GlobalAveragePool", "InstanceNormalization"
_OTHERS = frozenset({"GroupNormalization", "MeanVarianceNormalization", "GlobalLpPool", "LpPool"})
_WINDOWS = "AveragePool"
_LONG = 256
"""The number of terms from which the order of a sum shows (`reparamkit.compare.float64.in_turn`)."""
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMean takes its axes as an input."""


def with_exact_sums(model: onnx.ModelProto) -> tuple[int, int]:
    """Change a model so. Those in branches and loops stay.

    Returns:
        How many of its nodes take sums in float64 now, and how many that may add up many terms do not.
    """
    import onnx

    known = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type
        for value in (*known.value_info, *known.input, *known.output)
        if value.type.HasField("tensor_type")
    }
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    nodes: list[onnx.NodeProto] = []
    count = left = 0
    for node in model.graph.node:
        changed: list[onnx.NodeProto] = []
        if _may_be_long(node):
            entry = types.get(node.input[0]) if node.input else None
            if entry is not None and entry.elem_type == onnx.TensorProto.FLOAT and _is_plain(node):
                rank = len(entry.shape.dim) if entry.HasField("shape") else 0
                changed = [*_Changed(node, count, rank, opset, model.graph).nodes()]
            count += bool(changed)
            left += not changed
        nodes += changed or [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return count, left


def _may_be_long(node: onnx.NodeProto) -> bool:
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return True  # what it does is not known
    if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
        return True  # what is in it stays
    if node.op_type == _WINDOWS:
        return math.prod(_per_axis(node)["kernel_shape"]) >= _LONG
    return node.op_type in {*_SUMS, *_WITH_FACTORS, *_OTHERS, _POOL, _INSTANCE}


def _per_axis(node: onnx.NodeProto) -> dict[str, list[int]]:
    """Those of its attributes that hold a number for each axis, or two."""
    return {each.name: list(each.ints) for each in node.attribute if each.ints}


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether its first result is all that is asked for."""
    return node.domain in ("", "ai.onnx") and not any(node.output[1:])


class _Changed:
    """A node with its sum in float64."""

    def __init__(
        self, node: onnx.NodeProto, number: int, rank: int, opset: int, graph: onnx.GraphProto
    ) -> None:
        self._node, self._number, self._rank = node, number, rank
        self._opset, self._graph = opset, graph

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """The nodes in its place; none where it stays as it is."""
        import onnx

        kind, rank = self._node.op_type, self._rank
        if kind == _WINDOWS:
            if max(_per_axis(self._node)["kernel_shape"]) < _LONG:
                yield from self._windows()
            return
        if kind in _SUMS:
            body = [self._same(1)]
        elif kind in _WITH_FACTORS:
            body = [*self._cast_factors(), self._same(len(self._node.input))]
        elif kind == _POOL and rank > 2:
            body = [self._mean("wide", "total")]
        elif kind == _INSTANCE and rank > 2:
            body = [*self._cast_factors(), *self._instance_norm()]
        else:
            return
        yield self._made("Cast", [self._node.input[0]], "wide", to=onnx.TensorProto.DOUBLE)
        yield from body
        yield onnx.helper.make_node(
            "Cast", [self._name("total")], [self._node.output[0]], to=onnx.TensorProto.FLOAT
        )

    def _name(self, which: str) -> str:
        return f"reparamkit_{which}_{self._number}"

    def _made(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        import onnx

        return onnx.helper.make_node(operator, inputs, [self._name(output)], **attributes)

    def _same(self, cast: int) -> onnx.NodeProto:
        import onnx

        changed = onnx.NodeProto()
        changed.CopyFrom(self._node)
        names = ["wide", *(f"factor{place}" for place in range(1, cast))]
        for place, name in enumerate(names):
            if changed.input[place]:
                changed.input[place] = self._name(name)
        changed.output[0] = self._name("total")
        return changed

    def _windows(self) -> Iterator[onnx.NodeProto]:
        import onnx

        numbers = _per_axis(self._node)
        count = len(numbers["kernel_shape"])
        names = [self._node.input[0], *(self._name(f"along{axis}") for axis in range(1, count))]
        for axis, (value, output) in enumerate(zip(names, [*names[1:], self._node.output[0]], strict=True)):
            pool = onnx.NodeProto()
            pool.CopyFrom(self._node)
            pool.input[0], pool.output[0] = value, output
            pool.name = ""  # a name is one node's
            for attribute in pool.attribute:
                if attribute.name in numbers:
                    others = 0 if attribute.name == "pads" else 1
                    attribute.ints[:] = [
                        number if place % count == axis else others
                        for place, number in enumerate(numbers[attribute.name])
                    ]
            yield pool

    def _cast_factors(self) -> Iterator[onnx.NodeProto]:
        import onnx

        for place, name in enumerate(self._node.input[1:], start=1):
            if name:
                yield self._made("Cast", [name], f"factor{place}", to=onnx.TensorProto.DOUBLE)

    def _constant(self, which: str, numbers: list[int]) -> str:
        import onnx

        name = self._name(which)
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(numbers)], numbers)
        if all(entry.name != name for entry in self._graph.initializer):
            self._graph.initializer.append(tensor)
        return name

    def _mean(self, value: str, output: str) -> onnx.NodeProto:
        axes = [*range(2, self._rank)]
        if self._opset >= _AXES_ARE_INPUTS:
            inputs = [self._name(value), self._constant("axes", axes)]
            return self._made("ReduceMean", inputs, output, keepdims=1)
        return self._made("ReduceMean", [self._name(value)], output, axes=axes, keepdims=1)

    def _instance_norm(self) -> Iterator[onnx.NodeProto]:
        import onnx

        epsilon = next((a.f for a in self._node.attribute if a.name == "epsilon"), 1e-5)
        name = self._name
        self._graph.initializer.append(
            onnx.helper.make_tensor(name("epsilon"), onnx.TensorProto.DOUBLE, [], [epsilon])
        )
        shape = self._constant("shape", [-1, *[1] * (self._rank - 2)])
        yield self._mean("wide", "mean")
        yield self._made("Sub", [name("wide"), name("mean")], "centred")
        yield self._made("Mul", [name("centred")] * 2, "squares")
        yield self._mean("squares", "variance")
        yield self._made("Add", [name("variance"), name("epsilon")], "positive")
        yield self._made("Sqrt", [name("positive")], "deviation")
        yield self._made("Div", [name("centred"), name("deviation")], "normal")
        yield self._made("Reshape", [name("factor1"), shape], "scale")
        yield self._made("Reshape", [name("factor2"), shape], "shift")
        yield self._made("Mul", [name("normal"), name("scale")], "scaled")
        yield self._made("Add", [name("scaled"), name("shift")], "total")
