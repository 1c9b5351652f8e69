"""The same kinds of mistake in the ONNX file: other numbers, other attributes, nodes left out or moved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, NodeProto, helper
from torch import fx

from tests.compare.mutations.onnx_file import (
    Array,
    Change,
    OnnxFile,
    OnnxLayer,
    OnnxMutation,
    edited,
    scaled,
    swapped,
    with_attributes,
    with_values,
)
from tests.compare.mutations.refolds import Refold

_ACTIVATIONS = frozenset(
    {"Relu", "Gelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh", "PRelu", "LeakyRelu", "Elu"}
    | {"Clip", "Softmax"}
)
_CROSSABLE = frozenset({"Conv", "Gemm", "MatMul", "Add", "Mul"})

OnnxKind = Callable[[OnnxFile, Random], OnnxMutation | None]


def weight_off(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One weight is 1 % too large."""
    found = [name for name in file.floats if np.prod(file.shapes[name]) > 1]
    if not found:
        return None
    name = random.choice(found)
    place = random.randrange(int(np.prod(file.shapes[name])))
    change = partial(scaled, place=place, factor=1.01)
    return with_values("weight off by 1 %", f"{name}[{place}]", {name: change})


def bias_dropped(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One layer has no bias input."""
    layer = file.pick(random, lambda layer: layer.bias is not None)
    if layer is None:
        return None

    def apply(graph: GraphProto) -> None:
        del graph.node[layer.index].input[2:]

    return edited("bias dropped", f"{layer.bias}", apply)


def bias_element_dropped(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One channel of one layer has no bias."""
    layer = file.pick(random, lambda layer: layer.bias is not None)
    if layer is None or layer.bias is None:
        return None
    place = random.randrange(int(np.prod(file.shapes[layer.bias])))
    change = partial(scaled, place=place, factor=0.0)
    return with_values("one bias dropped", f"{layer.bias}[{place}]", {layer.bias: change})


def kernel_transposed(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """Height and width of a kernel are exchanged, or inputs and outputs of a square matrix."""

    def square(layer: OnnxLayer) -> bool:
        shape = file.shapes[layer.weight]
        return bool((len(shape) == 4 and shape[2] == shape[3] > 1) or shape[0] == shape[1] > 1)

    layer = file.pick(random, square)
    if layer is None:
        return None
    shape = file.shapes[layer.weight]
    axes = (2, 3) if len(shape) == 4 and shape[2] == shape[3] > 1 else (0, 1)
    change = {layer.weight: lambda values: np.swapaxes(values, *axes)}
    return with_values("kernel transposed", f"{layer.weight}, axes {axes}", change)


def groups_permuted(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """Two groups of a convolution have each other's kernels."""
    layer = file.pick(random, lambda layer: layer.groups > 1)
    if layer is None:
        return None
    one, other = random.sample(range(layer.groups), 2)
    size = file.shapes[layer.weight][0] // layer.groups
    order = list(range(layer.groups))
    order[one], order[other] = other, one
    rows = [group * size + row for group in order for row in range(size)]
    where = f"{layer.weight}, groups {one} and {other}"
    return with_values("groups permuted", where, {layer.weight: lambda values: values[rows]})


def channelsswapped(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """Two output channels of a layer are exchanged."""
    layer = file.pick(random, lambda layer: file.shapes[layer.weight][layer.outputs] > 1)
    if layer is None:
        return None
    one, other = random.sample(range(file.shapes[layer.weight][layer.outputs]), 2)
    changes: dict[str, Change] = {layer.weight: partial(swapped, one=one, other=other, axis=layer.outputs)}
    if layer.bias is not None:
        changes[layer.bias] = partial(swapped, one=one, other=other, axis=-1)
    return with_values("channels swapped", f"{layer.weight}, channels {one} and {other}", changes)


def padding_shifted(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One more row or column of padding on one side of a convolution, and one less on the other."""
    options = []
    for layer in file.layers:
        pads = file.attribute(layer.index, "pads", []) if layer.op_type == "Conv" else []
        axes = len(pads) // 2
        options += [
            (layer, pads, axis, step)
            for axis in range(axes)
            for step in (1, -1)
            if pads[axis if step < 0 else axis + axes] > 0  # ONNX Runtime takes no negative padding
        ]
    if not options:
        return None
    layer, pads, axis, step = random.choice(options)
    shifted = list(pads)
    shifted[axis] += step
    shifted[axis + len(pads) // 2] -= step
    return with_attributes("padding shifted by one", file, layer.index, {"pads": shifted})


def stride_and_dilation(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """Stride and dilation of a convolution are exchanged; or it is dilated twice as much."""
    options = []
    for layer in file.layers:
        if layer.op_type != "Conv":
            continue
        window = list(file.shapes[layer.weight][2:])
        stride = list(file.attribute(layer.index, "strides", [1] * len(window)))
        dilation = list(file.attribute(layer.index, "dilations", [1] * len(window)))
        pads = list(file.attribute(layer.index, "pads", [0] * 2 * len(window)))
        wanted = [(dilation, stride)] if stride != dilation else []
        if max(window) > 1:
            wanted.append((stride, [2 * step for step in dilation]))
        for new_stride, new in wanted:
            sides = [(n - d) * (k - 1) // 2 for n, d, k in zip(new, dilation, window, strict=True)]
            padding = [max(side + more, 0) for side, more in zip(pads, sides * 2, strict=True)]
            options.append((layer, {"strides": new_stride, "dilations": new, "pads": padding}))
    if not options:
        return None
    layer, changes = random.choice(options)
    return with_attributes("stride and dilation changed", file, layer.index, changes)


def attribute_changed(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """Another setting of some other operator: an epsilon, a softmax axis, how borders are averaged …"""
    options: list[tuple[int, dict[str, Any]]] = []
    for at, node in enumerate(file.nodes):
        if node.op_type in ("LayerNormalization", "BatchNormalization"):
            options += [
                (at, {"epsilon": eps}) for eps in (1e-3, 1e-5) if eps != file.attribute(at, "epsilon", 1e-5)
            ]
        elif node.op_type == "Softmax":
            options.append((at, {"axis": 1 if file.attribute(at, "axis", -1) != 1 else -1}))
        elif node.op_type == "Gelu":
            options.append((at, {"approximate": "tanh"}))
        elif node.op_type == "AveragePool":
            options.append((at, {"count_include_pad": 1 - file.attribute(at, "count_include_pad", 0)}))
        elif node.op_type == "Gemm" and file.attribute(at, "alpha", 1.0) == 1.0:
            options.append((at, {"alpha": 1.01}))
        elif node.op_type == "Resize":
            options.append((at, {"mode": "linear"}))
    if not options:
        return None
    return with_attributes("attribute changed", file, *random.choice(options))


def activation_left_out(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One activation is missing."""
    found = [at for at, node in enumerate(file.nodes) if node.op_type in _ACTIVATIONS]
    if not found:
        return None
    at = random.choice(found)

    def apply(graph: GraphProto) -> None:
        node = graph.node[at]
        graph.node[at].CopyFrom(helper.make_node("Identity", node.input[:1], node.output, node.name))

    return edited("activation left out", file.nodes[at].name, apply)


def activation_moved(file: OnnxFile, random: Random) -> OnnxMutation | None:
    """One activation comes before the operator that it followed."""
    makers = {name: at for at, node in enumerate(file.nodes) for name in node.output}
    found = [
        at
        for at, node in enumerate(file.nodes)
        if node.op_type in _ACTIVATIONS
        and node.input[0] in makers
        and file.nodes[makers[node.input[0]]].op_type in _CROSSABLE
    ]
    if not found:
        return None
    at = random.choice(found)

    def apply(graph: GraphProto) -> None:
        activation = graph.node[at]
        before = graph.node[makers[activation.input[0]]]
        first, again = NodeProto(), NodeProto()
        first.CopyFrom(activation)
        again.CopyFrom(before)
        first.input[0], first.output[0] = before.input[0], "moved"
        again.input[0], again.output[0], again.name = "moved", activation.output[0], "moved_again"
        graph.node[at].CopyFrom(again)
        graph.node.insert(at, first)

    return edited("activation moved", file.nodes[at].name, apply)


ONNX_KINDS: tuple[OnnxKind, ...] = (
    weight_off,
    bias_dropped,
    channelsswapped,
    kernel_transposed,
    padding_shifted,
    stride_and_dilation,
    attribute_changed,
    bias_element_dropped,
    groups_permuted,
    activation_left_out,
    activation_moved,
)


def with_weights_of(refold: Refold, folded: fx.GraphModule, file: OnnxFile) -> OnnxMutation | None:
    """The file with the weights of another fold, where that has the same graph; else None."""
    ours, theirs = folded.state_dict(), refold.single.state_dict()
    if {n: v.shape for n, v in ours.items()} != {n: v.shape for n, v in theirs.items()}:
        return None
    if _calls(folded) != _calls(refold.single):
        return None
    changes: dict[str, Change] = {}
    for name, values in ours.items():
        if torch.equal(values, theirs[name]):
            continue
        home = file.home_of(name, values.numpy())
        if home is None:
            return None
        inside, axes = home
        changes[inside] = partial(_other, theirs[name].numpy().transpose(axes).reshape(file.shapes[inside]))
    return with_values(refold.kind, refold.where, changes) if changes else None


def _other(values: Array, _: Array) -> Array:
    return values


def _calls(module: fx.GraphModule) -> list[tuple[str, str, str]]:
    return [(node.op, str(node.target), str(node.args)) for node in module.graph.nodes]
