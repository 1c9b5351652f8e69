"""The kinds of mistake that are put into a folded torch module, one at a time, and taken out again.

Each kind is a function that picks a place at random and returns the mutation, or None where the network has
no place for it. A mutation is applied to the fold and to its float64 copy alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
from torch import Tensor, fx, nn

from tests.compare.mutations.layers import (
    CONVOLUTIONS,
    Edit,
    Layer,
    activations,
    aten,
    convolution_as_function,
    layers,
    named,
    settings,
    tensor,
    with_graph,
    with_values,
)

Apply = Callable[[fx.GraphModule], AbstractContextManager[nn.Module]]


@dataclass(frozen=True)
class Mutation:
    """One mistake: its kind, its place in words, and how a module is made to have it for a while."""

    kind: str
    where: str
    apply: Apply


Kind = Callable[[fx.GraphModule, Random], Mutation | None]


def weight_off(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One weight is 1 % too large."""
    return _weight_off(module, random, "weight off by 1 %", 1.01)


def weight_off_by_a_little(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One weight is too large, by 0.3 % or by much less. None of `KINDS`: most of these do not matter."""
    return _weight_off(module, random, "weight off by a little", 1 + 10 ** -random.uniform(2.5, 6.5))


def bias_dropped(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One layer has no bias."""
    layer = _pick(module, random, lambda layer: layer.bias is not None)
    if layer is None or layer.bias is None:
        return None
    return _values("bias dropped", layer.bias, {layer.bias: torch.zeros_like})


def bias_element_dropped(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One channel of one layer has no bias."""
    layer = _pick(module, random, lambda layer: layer.bias is not None)
    if layer is None or layer.bias is None:
        return None
    place = random.randrange(tensor(module, layer.bias).numel())
    change = partial(scaled, place=place, factor=0.0)
    return _values("one bias dropped", f"{layer.bias}[{place}]", {layer.bias: change})


def kernel_transposed(module: fx.GraphModule, random: Random) -> Mutation | None:
    """Height and width of a kernel are exchanged, or inputs and outputs of a square matrix."""

    def square(layer: Layer) -> bool:
        shape = tensor(module, layer.weight).shape
        return (len(shape) == 4 and shape[2] == shape[3] > 1) or shape[0] == shape[1] > 1

    layer = _pick(module, random, square)
    if layer is None:
        return None
    shape = tensor(module, layer.weight).shape
    axes = (2, 3) if len(shape) == 4 and shape[2] == shape[3] > 1 else (0, 1)
    change = {layer.weight: lambda values: values.transpose(*axes).contiguous()}
    return _values("kernel transposed", f"{layer.weight}, axes {axes}", change)


def groups_permuted(module: fx.GraphModule, random: Random) -> Mutation | None:
    """Two groups of a convolution have each other's kernels."""
    layer = _pick(module, random, lambda layer: layer.groups > 1)
    if layer is None:
        return None
    one, other = random.sample(range(layer.groups), 2)
    size = tensor(module, layer.weight).shape[0] // layer.groups
    order = list(range(layer.groups))
    order[one], order[other] = other, one
    rows = [group * size + row for group in order for row in range(size)]
    where = f"{layer.weight}, groups {one} and {other}"
    return _values("groups permuted", where, {layer.weight: lambda values: values[rows]})


def channels_swapped(module: fx.GraphModule, random: Random) -> Mutation | None:
    """Two output channels of a layer are exchanged."""
    layer = _pick(module, random, lambda layer: tensor(module, layer.weight).shape[0] > 1)
    if layer is None:
        return None
    count = tensor(module, layer.weight).shape[0]
    one, other = random.sample(range(count), 2)
    change = partial(swapped, one=one, other=other)
    names = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    where = f"{layer.weight}, channels {one} and {other}"
    return _values("channels swapped", where, dict.fromkeys(names, change))


def padding_shifted(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One more row or column of padding on one side of a convolution, and one less on the other."""
    layer = _pick(module, random, lambda layer: layer.convolution)
    if layer is None:
        return None
    _, _, padding, _ = settings(module, layer.node)
    axis, step = random.randrange(len(padding)), random.choice((1, -1))

    def edit(module: fx.GraphModule, graph: fx.Graph) -> None:
        call = convolution_as_function(module, graph, layer.node)
        amounts: list[int] = []
        for at, side in reversed(list(enumerate(padding))):
            shift = step if at == axis else 0
            amounts += [side + shift, side - shift]
        with graph.inserting_before(call):
            padded = graph.call_function(aten.constant_pad_nd.default, (call.args[0], amounts))
        call.args = (padded, *call.args[1:4], [0] * len(padding), *call.args[5:])

    return _edited("padding shifted by one", f"{layer.node}, axis {axis}, {step:+d}", edit)


def stride_and_dilation(module: fx.GraphModule, random: Random) -> Mutation | None:
    """Stride and dilation of a convolution are exchanged; or it is dilated twice as much.

    The padding goes with it, so that sizes stay where they can.
    """
    options = []
    for layer in layers(module):
        if not layer.convolution:
            continue
        window, stride, padding, dilation = settings(module, layer.node)
        if stride != dilation:
            options.append((layer, dilation, _padding_for(window, padding, dilation, stride), stride))
        if max(window) > 1:
            double = [2 * step for step in dilation]
            options.append((layer, stride, _padding_for(window, padding, dilation, double), double))
    if not options:
        return None
    layer, stride, padding, dilation = random.choice(options)

    def edit(module: fx.GraphModule, graph: fx.Graph) -> None:
        call = convolution_as_function(module, graph, layer.node)
        call.args = (*call.args[:3], stride, padding, dilation, call.args[6])

    where = f"{layer.node}: stride {stride}, padding {padding}, dilation {dilation}"
    return _edited("stride and dilation changed", where, edit)


def activation_left_out(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One activation is missing."""
    found = activations(module)
    if not found:
        return None
    name = random.choice(found).name

    def edit(module: fx.GraphModule, graph: fx.Graph) -> None:
        node = named(graph, name)
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)

    return _edited("activation left out", name, edit)


def activation_moved(module: fx.GraphModule, random: Random) -> Mutation | None:
    """One activation comes before the operator that it followed."""
    found = [node for node in activations(module) if _has_tensor_input(node.args[0])]
    if not found:
        return None
    name = random.choice(found).name

    def edit(module: fx.GraphModule, graph: fx.Graph) -> None:
        node = named(graph, name)
        before = node.args[0]
        assert isinstance(before, fx.Node)
        with graph.inserting_before(node):
            moved = graph.call_function(node.target, (before.args[0], *node.args[1:]))  # type: ignore[arg-type]
            again = graph.node_copy(before)
        again.args = (moved, *before.args[1:])
        node.replace_all_uses_with(again)
        graph.erase_node(node)

    return _edited("activation moved", name, edit)


KINDS: tuple[Kind, ...] = (
    weight_off,
    bias_dropped,
    channels_swapped,
    kernel_transposed,
    padding_shifted,
    stride_and_dilation,
    bias_element_dropped,
    groups_permuted,
    activation_left_out,
    activation_moved,
)


def scaled(values: Tensor, *, place: int, factor: float) -> Tensor:
    """The values with the one at the flat index `place` multiplied."""
    changed = values.clone()
    changed.view(-1)[place] *= factor
    return changed


def swapped(values: Tensor, *, one: int, other: int, axis: int = 0) -> Tensor:
    """The values with two places along an axis exchanged."""
    order = list(range(values.shape[axis]))
    order[one], order[other] = other, one
    return values.index_select(axis, torch.tensor(order))


def _weight_off(module: fx.GraphModule, random: Random, kind: str, factor: float) -> Mutation | None:
    found = [name for name, values in module.named_parameters() if values.numel()]
    if not found:
        return None
    name = random.choice(found)
    place = random.randrange(tensor(module, name).numel())
    change = partial(scaled, place=place, factor=factor)
    return _values(kind, f"{name}[{place}] times {factor:.9g}", {name: change})


def _values(kind: str, where: str, changes: dict[str, Callable[[Tensor], Tensor]]) -> Mutation:
    return Mutation(kind, where, partial(with_values, changes=changes))


def _edited(kind: str, where: str, edit: Edit) -> Mutation:
    return Mutation(kind, where, partial(with_graph, edit=edit))


def _pick(module: fx.GraphModule, random: Random, wanted: Callable[[Layer], bool]) -> Layer | None:
    found = [layer for layer in layers(module) if wanted(layer)]
    return random.choice(found) if found else None


def _padding_for(window: list[int], padding: list[int], dilation: list[int], wanted: list[int]) -> list[int]:
    """The padding that keeps the size where it was kept, if the dilation becomes `wanted`."""
    sides = zip(window, padding, dilation, wanted, strict=True)
    return [max(side + (new - old) * (taps - 1) // 2, 0) for taps, side, old, new in sides]


def _has_tensor_input(node: object) -> bool:
    """Whether an operator is one that an activation can be moved across."""
    if not isinstance(node, fx.Node) or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    crossable = {aten.linear.default, aten.add.Tensor, aten.mul.Tensor, *CONVOLUTIONS.values()}
    return node.op == "call_module" or node.target in crossable
