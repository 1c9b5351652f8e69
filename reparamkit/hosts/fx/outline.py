"""A graph as plain data: every call that depends on the inputs, what it reads, where it belongs, its work.

Reports draw networks from this. Sizes are those of the example that the network was captured with; of a
convolution or linear layer the multiply-accumulates are

    |output| · (inputs / groups) · Π window        transposed: |input| · (outputs / groups) · Π window
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from reparamkit.capture.program import Program
from reparamkit.engine.layers import operators_of
from reparamkit.hosts.fx.constants import hint
from reparamkit.hosts.fx.read_calls import signature
from reparamkit.hosts.fx.write import owner_path
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves

_LARGE = 7
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("matmul", "mm", "bmm", "einsum")
_MULTIPLY = (*_PRODUCTS, "addmm", "baddbmm", "scaled_dot_product_attention")


@dataclass(frozen=True)
class Call:
    """One operator on tensors.

    Attributes:
        name: its own in the graph.
        operator: by ATen's name, such as conv2d; `input` and `output` for the network's own.
        module: the path of the module whose forward calls it; "" for the network itself.
        layer: of a layer that a fold has put in, its path.
        reads: the names of the calls and inputs that it reads.
        shape: of the result, at the example's sizes; empty if that is not known.
        window, stride, dilation: of a convolution, per axis.
        channels: of a convolution or linear layer, how many go in and how many come out.
        groups: of a convolution.
        macs: multiply-accumulates; 0 for everything that is no convolution or matrix product.
        kernel: of a two-dimensional convolution, row by row, the mean magnitude of the weights at each place;
            only if a side is 7 or more, or if it is per channel and no point.
    """

    name: str
    operator: str
    module: str
    layer: str = ""
    reads: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    channels: tuple[int, int] | None = None
    groups: int = 1
    macs: int = 0
    kernel: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Outline:
    """A network's calls in order, and how many numbers its parameters are.

    Attributes:
        unread: call -> why it is no affine map, where it is none.
        apart: a call, one that it reads, and why the two are not one affine map.
    """

    calls: tuple[Call, ...] = ()
    parameters: int = 0
    unread: Mapping[str, str] = field(default_factory=dict)
    apart: tuple[tuple[str, str, str], ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates on the example."""
        return sum(call.macs for call in self.calls)

    def within(self, path: str, holder: str = "") -> Outline:
        """The same, as the part of a network that lies at a path; `holder` is what holds its new layers."""

        def named(name: str) -> str:
            return f"{path}:{name}"

        def placed(module: str) -> str:
            return ".".join(filter(None, [path, module]))

        calls = (
            replace(
                call,
                name=named(call.name),
                module=placed(call.module),
                layer=".".join(filter(None, [path, holder, call.layer])) if call.layer else "",
                reads=tuple(map(named, call.reads)),
            )
            for call in self.calls
        )
        unread = {named(name): reason for name, reason in self.unread.items()}
        apart = ((named(reader), named(source), reason) for reader, source, reason in self.apart)
        return Outline(tuple(calls), self.parameters, unread, tuple(apart))

    def __add__(self, other: Outline) -> Outline:
        return Outline(
            self.calls + other.calls,
            self.parameters + other.parameters,
            {**self.unread, **other.unread},
            self.apart + other.apart,
        )


def outline(
    graph: fx.Graph,
    tensor: Callable[[str], Tensor | None],
    shapes: Mapping[fx.Node, tuple[int, ...]],
    layer: Callable[[str], nn.Module] | None = None,
) -> Outline:
    """The outline of a graph.

    Args:
        tensor: the stored tensor that a `get_attr` node names, if there is one.
        shapes: the sizes of values, as far as they are known.
        layer: the module that a `call_module` node names.
    """
    return _Reading(graph, tensor, shapes, layer).outline()


class ExampleSizes:
    """Sizes of the values of a captured graph for one example, which may differ from the captured one.

    Args:
        args, kwargs: the example; by default that of the capture, in which a free batch of one is two.
    """

    def __init__(self, program: Program, example: tuple[Args, Kwargs] | None = None) -> None:
        tensors = [tensor for _, tensor in tensor_leaves(*(example or (program.args, program.kwargs)))]
        self._known = {
            symbol: int(tensors[index].shape[axis])
            for index, axes in program.axes.items()
            for axis, symbol in axes.items()
        }
        self._sizes: dict[Any, int] = {}
        self._shapes: dict[fx.Node, tuple[int, ...] | None] = {}

    def shapes(self, graph: fx.Graph) -> dict[fx.Node, tuple[int, ...]]:
        """The sizes of every tensor whose shape is known."""
        shapes = ((node, self.shape(node)) for node in graph.nodes)
        return {node: shape for node, shape in shapes if shape is not None}

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """The sizes of a node's tensor; None where it has none."""
        if node not in self._shapes:
            value = node.meta.get("val")
            sizes = [self._size(n) for n in value.shape] if isinstance(value, Tensor) else None
            self._shapes[node] = None if sizes is None else tuple(sizes)
        return self._shapes[node]

    def _size(self, size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        formula = size.node.expr
        if formula not in self._sizes:
            sizes = {symbol: self._known.get(str(symbol)) for symbol in formula.free_symbols}
            known = {symbol: number for symbol, number in sizes.items() if number is not None}
            value = formula.subs(known)
            self._sizes[formula] = int(value) if value.is_Integer else hint(size)
        return self._sizes[formula]


class _Reading:
    def __init__(
        self,
        graph: fx.Graph,
        tensor: Callable[[str], Tensor | None],
        shapes: Mapping[fx.Node, tuple[int, ...]],
        layer: Callable[[str], nn.Module] | None,
    ) -> None:
        self._graph, self._tensor, self._layer, self._shapes = graph, tensor, layer, shapes
        self._stands: dict[fx.Node, tuple[str, ...]] = {}
        """Node -> the names of the calls that its value comes from."""
        self._parameters: dict[int, int] = {}

    def outline(self) -> Outline:
        calls = [call for node in self._graph.nodes if (call := self._call(node)) is not None]
        return Outline(tuple(calls), sum(self._parameters.values()))

    def _call(self, node: fx.Node) -> Call | None:
        reads = self._reads(node)
        if node.op == "placeholder":
            if node not in self._shapes:
                return None
            self._stands[node] = (node.name,)
            return Call(node.name, "input", "", shape=self._shape(node))
        if node.op == "output":
            return Call(node.name, "output", "", reads=reads)
        if node.op == "get_attr":
            self._count(self._tensor(str(node.target)))
            return None
        module = self._module(node)
        for parameter in module.parameters() if module is not None else ():
            self._count(parameter)
        if not reads:
            return None
        if not self._computes(node, module):
            self._stands[node] = reads
            return None
        self._stands[node] = (node.name,)
        return self._layer_call(node, module, reads) if module is not None else self._operator(node, reads)

    def _reads(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for n in node.all_input_nodes for name in self._stands.get(n, ())))

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._layer(str(node.target)) if node.op == "call_module" and self._layer else None

    @staticmethod
    def _computes(node: fx.Node, module: nn.Module | None) -> bool:
        """Whether it is an operator on tensors; an item of several results, or a size, is none."""
        if module is not None:
            return bool(list(module.parameters()))
        if not hasattr(node.target, "_schema"):
            return False
        value = node.meta.get("val")
        return value is None or isinstance(value, Tensor | list | tuple)

    def _count(self, tensor: Tensor | None) -> None:
        if isinstance(tensor, nn.Parameter):
            self._parameters[id(tensor)] = tensor.numel()

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return self._shapes.get(node, ())

    def _layer_call(self, node: fx.Node, module: nn.Module, reads: tuple[str, ...]) -> Call:
        path = str(node.target)
        operator = operators_of(module)[0]
        weight = getattr(module, "weight", None)
        options = {name: getattr(module, name, None) for name in ("stride", "dilation", "groups")}
        call = Call(node.name, operator, path, path, reads, _with_channels(self._shape(node), module))
        return self._described(call, node.all_input_nodes[:1], weight, options)

    def _operator(self, node: fx.Node, reads: tuple[str, ...]) -> Call:
        target: Any = node.target
        operator = target._schema.name.split("::")[1]
        given: dict[str, Any] = dict(zip(signature(target)[0], node.args, strict=False)) | dict(node.kwargs)
        call = Call(node.name, operator, owner_path(node), "", reads, self._shape(node))
        stored = given.get("weight")
        weight: Any = None
        if isinstance(stored, fx.Node):
            weight = self._tensor(str(stored.target)) if stored.op == "get_attr" else stored.meta.get("val")
        operands = [n for n in node.all_input_nodes if n.op != "get_attr" or operator in _PRODUCTS]
        return self._described(call, operands, weight, given)

    def _described(
        self, call: Call, operands: Sequence[fx.Node], weight: Any, options: Mapping[str, Any]
    ) -> Call:
        if not isinstance(weight, Tensor) and call.operator not in _MULTIPLY:
            return call
        shapes = [self._shape(node) for node in operands]
        elements = math.prod(call.shape) if call.shape else 0
        if isinstance(weight, Tensor) and call.operator in _CONVOLUTIONS:
            sizes = tuple(map(hint, weight.shape))
            groups = int(options.get("groups") or 1)
            transposed = "transpose" in call.operator
            channels = (sizes[0], sizes[1] * groups) if transposed else (sizes[1] * groups, sizes[0])
            moved = math.prod(shapes[0]) if transposed and shapes else elements
            window = sizes[2:]
            return replace(
                call,
                window=window,
                stride=_per_axis(options.get("stride"), len(window)),
                dilation=_per_axis(options.get("dilation"), len(window)),
                groups=groups,
                channels=channels,
                macs=moved * math.prod(sizes[1:]),
                kernel=_magnitudes(weight),
            )
        if isinstance(weight, Tensor) and call.operator == "linear" and weight.ndim == 2:
            outputs, inputs = (int(n) for n in weight.shape)
            return replace(call, channels=(inputs, outputs), macs=elements * inputs)
        if call.operator in _PRODUCTS and shapes and shapes[0]:
            return replace(call, macs=elements * shapes[0][-1])
        if call.operator in ("addmm", "baddbmm") and len(shapes) > 1 and shapes[-2]:
            return replace(call, macs=elements * shapes[-2][-1])
        if call.operator == "scaled_dot_product_attention" and len(shapes) > 2 and shapes[1]:
            keys = math.prod(shapes[0]) * shapes[1][-2]
            return replace(call, macs=keys + elements * shapes[1][-2])
        return call


def _with_channels(shape: tuple[int, ...], layer: nn.Module) -> tuple[int, ...]:
    """The shape of a layer's result, where that of a piece of it is known."""
    outputs = getattr(layer, "out_features", getattr(layer, "out_channels", None))
    if outputs is None or not shape:
        return shape
    axis = len(shape) - 1 - len(getattr(layer, "kernel_size", ()))
    return (*shape[:axis], int(outputs), *shape[axis + 1 :])


def _per_axis(given: Any, axes: int) -> tuple[int, ...]:
    values = (1,) if given is None else (given,) if isinstance(given, int) else tuple(given)
    return tuple(int(n) for n in (values * axes if len(values) == 1 else values))


def _magnitudes(weight: Tensor) -> tuple[tuple[float, ...], ...]:
    if weight.ndim != 4 or weight.is_meta:
        return ()
    side = max(weight.shape[2:])
    if side < _LARGE and (side == 1 or weight.shape[1] > 1):
        return ()
    with torch.no_grad():
        means = weight.detach().abs().double().mean((0, 1)).cpu()
    return tuple(tuple(row) for row in means.tolist())
