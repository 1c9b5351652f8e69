"""An ONNX model whose sums over axes are taken in float64, between values that are float32 as before.

How far that is from the model as it is, is what its own sums are off by: no order of adding up is the file's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SUMS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "Softmax"})
_POOL = "GlobalAveragePool"
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMean takes its axes as an input."""


def with_exact_sums(model: onnx.ModelProto) -> int:
    """Change a model so; how many of its nodes take sums in float64 now. Those in branches and loops stay."""
    import onnx

    known = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type
        for value in (*known.value_info, *known.input, *known.output)
        if value.type.HasField("tensor_type")
    }
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        entry = types.get(node.input[0]) if node.input else None
        sums = node.domain in ("", "ai.onnx") and node.op_type in {*_SUMS, _POOL}
        if not sums or entry is None or entry.elem_type != onnx.TensorProto.FLOAT:
            nodes.append(node)
            continue
        rank = len(entry.shape.dim) if entry.HasField("shape") else 0
        if node.op_type == _POOL and rank < 3:
            nodes.append(node)
            continue
        nodes += _in_double(node, count, rank, opset, model.graph)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return count


def _in_double(
    node: onnx.NodeProto, number: int, rank: int, opset: int, graph: onnx.GraphProto
) -> Iterator[onnx.NodeProto]:
    import onnx

    wide, total = (f"reparamkit_{which}_{number}" for which in ("wide", "total"))
    yield onnx.helper.make_node("Cast", [node.input[0]], [wide], to=onnx.TensorProto.DOUBLE)
    if node.op_type == _POOL:
        axes = [*range(2, rank)]
        if opset >= _AXES_ARE_INPUTS:
            name = f"reparamkit_axes_{number}"
            graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(axes)], axes))
            changed = onnx.helper.make_node("ReduceMean", [wide, name], [total], keepdims=1)
        else:
            changed = onnx.helper.make_node("ReduceMean", [wide], [total], axes=axes, keepdims=1)
    else:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        changed.input[0], changed.output[0] = wide, total
    yield changed
    yield onnx.helper.make_node("Cast", [total], [node.output[0]], to=onnx.TensorProto.FLOAT)
