"""What a folded graph holds that can be mutated: layers with weights, and activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten

CONVOLUTIONS = {
    nn.Conv1d: aten.conv1d.default,
    nn.Conv2d: aten.conv2d.default,
    nn.Conv3d: aten.conv3d.default,
}
ACTIVATIONS = frozenset(
    {
        aten.relu.default,
        aten.relu6.default,
        aten.hardtanh.default,
        aten.gelu.default,
        aten.silu.default,
        aten.sigmoid.default,
        aten.hardswish.default,
        aten.hardsigmoid.default,
        aten.leaky_relu.default,
        aten.elu.default,
        aten.tanh.default,
        aten.prelu.default,
        aten.softmax.int,
    }
)

Edit = Callable[[fx.GraphModule, fx.Graph], None]
"""Changes a copy of a graph; the module is the one that it belongs to."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer.

    Attributes:
        node: the name of its node.
        weight, bias: their names in the state dict; `bias` is None where there is none.
        groups: of a convolution, else 1.
    """

    node: str
    weight: str
    bias: str | None
    convolution: bool
    groups: int


def layers(module: fx.GraphModule) -> list[Layer]:
    """All layers whose weights are tensors of the module, in order."""
    found = []
    for node in module.graph.nodes:
        if node.op == "call_module":
            part: Any = module.get_submodule(str(node.target))
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                named_bias = None if part.bias is None else f"{node.target}.bias"
                convolution = not isinstance(part, nn.Linear)
                groups = 1 if isinstance(part, nn.Linear) else part.groups
                found.append(Layer(node.name, f"{node.target}.weight", named_bias, convolution, groups))
        elif node.op == "call_function" and node.target in {aten.linear.default, *CONVOLUTIONS.values()}:
            weight, bias_node = node.args[1], node.args[2] if len(node.args) > 2 else None
            if weight.op != "get_attr" or (bias_node is not None and bias_node.op != "get_attr"):
                continue
            convolution = node.target is not aten.linear.default
            groups = int(_convolution_arguments(node)[6]) if convolution else 1
            named_bias = None if bias_node is None else str(bias_node.target)
            found.append(Layer(node.name, str(weight.target), named_bias, convolution, groups))
    return found


def tensor(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its name in the state dict."""
    path, _, last = name.rpartition(".")
    found = getattr(module.get_submodule(path), last)
    assert isinstance(found, Tensor)
    return found


def activations(module: fx.GraphModule) -> list[fx.Node]:
    """All nodes that are an activation, in order."""
    return [n for n in module.graph.nodes if n.op == "call_function" and n.target in ACTIVATIONS]


@contextmanager
def with_values(module: nn.Module, changes: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[nn.Module]:
    """The module with other values in some tensors; each has its own back afterwards.

    Values are computed in float32 whatever the module's type, so that a network and its float64 copy get
    exactly the same ones.
    """
    kept = {name: tensor(module, name).detach().clone() for name in changes}
    with torch.no_grad():
        for name, change in changes.items():
            tensor(module, name).copy_(change(kept[name].float()))
    try:
        yield module
    finally:
        with torch.no_grad():
            for name, values in kept.items():
                tensor(module, name).copy_(values)


@contextmanager
def with_graph(module: fx.GraphModule, edit: Edit) -> Iterator[nn.Module]:
    """A module with the same tensors whose graph was edited; the given one keeps its own."""
    graph = copy.deepcopy(module.graph)
    edit(module, graph)
    graph.lint()
    yield fx.GraphModule(module, graph)


def named(graph: fx.Graph, name: str) -> fx.Node:
    """The node of this name."""
    found: fx.Node = next(node for node in graph.nodes if node.name == name)
    return found


def convolution_as_function(module: fx.GraphModule, graph: fx.Graph, name: str) -> fx.Node:
    """Write the convolution at the node `name` as a call of aten with all seven arguments, and return it."""
    node = named(graph, name)
    if node.op == "call_function":
        node.args = _convolution_arguments(node)
        return node
    part: Any = module.get_submodule(str(node.target))
    with graph.inserting_before(node):
        weight = graph.get_attr(f"{node.target}.weight")
        bias = None if part.bias is None else graph.get_attr(f"{node.target}.bias")
        settings = (list(part.stride), list(part.padding), list(part.dilation), part.groups)
        call = graph.call_function(CONVOLUTIONS[type(part)], (node.args[0], weight, bias, *settings))
    node.replace_all_uses_with(call)
    graph.erase_node(node)
    return call


def settings(module: fx.GraphModule, name: str) -> tuple[list[int], list[int], list[int], list[int]]:
    """Window, stride, padding and dilation of the convolution at the node `name`, per axis."""
    node = named(module.graph, name)
    if node.op == "call_module":
        part: Any = module.get_submodule(str(node.target))
        return list(part.kernel_size), list(part.stride), list(part.padding), list(part.dilation)
    arguments = _convolution_arguments(node)
    window = list(tensor(module, str(arguments[1].target)).shape[2:])
    return window, arguments[3], arguments[4], arguments[5]


def _convolution_arguments(node: fx.Node) -> tuple[Any, ...]:
    """Input, weight, bias, stride, padding, dilation and groups, the three in between per axis."""
    given: list[Any] = list(node.args)
    given += [None, 1, 0, 1, 1][len(given) - 2 :]
    axes = next(number for number, call in enumerate(CONVOLUTIONS.values(), 1) if call is node.target)
    for position in (3, 4, 5):
        setting = given[position]
        per_axis = [setting] if isinstance(setting, int) else list(setting)
        given[position] = per_axis * axes if len(per_axis) == 1 else per_axis
    return tuple(given)
