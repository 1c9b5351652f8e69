"""How a person writes an operator: `x + y`, `x.flatten(1)`, `F.silu(x)`, `nn.Conv2d(3, 8, 3)`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload


class Unwritable(Exception):
    """It has no plain spelling; the message names it."""


_BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "matmul": "@", "floordiv": "//", "pow": "**"}
_FUNCTIONAL = {
    "relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "selu",
    "celu", "softplus", "mish", "prelu", "pad", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "pixel_shuffle", "pixel_unshuffle", "scaled_dot_product_attention", "linear", "conv1d", "conv2d",
    "conv3d",
}  # fmt: skip
"""The operators that torch.nn.functional has under the same name and with the same order of arguments."""
_METHODS = {
    "flatten", "reshape", "view", "transpose", "permute", "unsqueeze", "squeeze", "mean", "sum", "softmax",
    "sigmoid", "tanh", "exp", "sqrt", "rsqrt", "abs", "chunk", "split", "unbind", "expand", "clamp", "neg",
    "contiguous", "amax", "argmax", "log_softmax", "size", "square", "reciprocal", "erf", "narrow", "select",
    "unflatten", "movedim", "repeat", "masked_fill", "type_as", "expand_as", "detach", "clone", "cumsum",
}  # fmt: skip
_JOINING = {"cat", "stack"}
_ALIASES = {"split_with_sizes": "split", "sym_size": "size", "unsafe_split": "split"}
_CONVS: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}


def literal(value: Any) -> str:
    """A constant argument as Python."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise Unwritable(f"an argument {value!r} has no plain spelling")


def call_text(node: fx.Node, texts: Mapping[fx.Node, str]) -> str:
    """One call, its operands spelt as in `texts`."""

    def spelt(argument: Any) -> str:
        if isinstance(argument, fx.Node):
            return texts[argument]
        if isinstance(argument, list | tuple):
            items = ", ".join(map(spelt, argument))
            return f"[{items}]" if isinstance(argument, list) else f"({items}{',' * (len(argument) == 1)})"
        if isinstance(argument, slice):
            raise Unwritable("it slices by a computed range")
        return literal(argument)

    target = node.target
    if target is operator.getitem:
        return f"{_held(spelt(node.args[0]))}[{spelt(node.args[1])}]"
    if getattr(target, "__module__", "") in ("_operator", "math"):
        name = getattr(target, "__name__", "")
        if name in _BINARY and len(node.args) == 2:
            left, right = (_held(spelt(argument)) for argument in node.args)
            return f"{left} {_BINARY[name]} {right}"
    if not isinstance(target, OpOverload):
        raise Unwritable(
            f"it calls {getattr(target, '__name__', target)}, which is no operator of torch's own"
        )
    name = target._schema.name.removeprefix("aten::")
    args = list(node.args)
    words = [f"{key}={spelt(value)}" for key, value in node.kwargs.items()]
    plain = target._schema.name.startswith("aten::")
    if plain and name in _BINARY and len(args) == 2 and not words:
        left, right = (_held(spelt(argument)) for argument in args)
        return f"{left} {_BINARY[name]} {right}"
    if plain and name in _JOINING:
        return f"torch.{name}({', '.join([*map(spelt, args), *words])})"
    if (
        plain
        and name == "slice"
        and len(args) >= 2
        and not words
        and isinstance(args[1], int)
        and args[1] >= 0
    ):
        return _sliced([*args, *(None,) * (5 - len(args))], spelt)
    name = _ALIASES.get(name, name)
    if plain and name in _FUNCTIONAL and _fits(name, args):
        return f"F.{name}({', '.join([*map(spelt, args), *words])})"
    if plain and name in _METHODS and isinstance(args[0], fx.Node):
        return f"{_held(spelt(args[0]))}.{name}({', '.join([*map(spelt, args[1:]), *words])})"
    operator_name = f"torch.ops.{target._schema.name.replace('::', '.')}.{target._overloadname or 'default'}"
    return f"{operator_name}({', '.join([*map(spelt, args), *words])})"


def _fits(name: str, args: list[Any]) -> bool:
    """Whether the function takes these arguments in the order of the operator."""
    limits = {
        "gelu": 1,
        "hardtanh": 3,
        "elu": 2,
        "celu": 2,
        "scaled_dot_product_attention": 3,
        "hardswish": 1,
    }
    return len(args) <= limits.get(name, 7 if name.startswith("conv") else 6)


def _sliced(args: list[Any], spelt: Callable[[Any], str]) -> str:
    value, axis, start, end, step = args
    front = "" if start in (None, 0) else spelt(start)
    back = "" if end is None or (isinstance(end, int) and end >= 2**62) else spelt(end)
    stride = "" if step in (None, 1) else f":{spelt(step)}"
    return f"{_held(spelt(value))}[{':, ' * axis}{front}:{back}{stride}]"


def _held(text: str) -> str:
    """The text in brackets where it is more than one term."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character == " " and place:
            return f"({text})"
    return f"({text})" if text.startswith("-") else text


def layer_of_call(
    node: fx.Node, state: Callable[[Any], tuple[str, Tensor] | None]
) -> tuple[nn.Module, str, fx.Node] | None:
    """The layer of torch.nn that a call with stored weights is, its path, and its input."""
    if not isinstance(node.target, OpOverload):
        return None
    name = node.target._schema.name.removeprefix("aten::")
    names = [a.name for a in node.target._schema.arguments]
    defaults = {a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()}
    given: dict[str, Any] = defaults | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if name not in ("linear", *_CONVS) or str(node.target).endswith(".padding"):
        return None
    weight = state(given["weight"])
    bias = None if given["bias"] is None else state(given["bias"])
    if (
        weight is None
        or (bias is None and given["bias"] is not None)
        or not isinstance(given["input"], fx.Node)
    ):
        return None
    path, numbers = weight
    owner, _, last = path.rpartition(".")
    if not owner or last != "weight" or (bias is not None and bias[0] != f"{owner}.bias"):
        return None
    with torch.device("meta"):
        if name == "linear":
            layer: nn.Module = nn.Linear(numbers.shape[1], numbers.shape[0], bias is not None)
        else:
            dims = numbers.ndim - 2
            options = {key: _each(given[key], dims) for key in ("stride", "padding", "dilation")}
            groups = int(given["groups"])
            layer = _CONVS[name](
                numbers.shape[1] * groups,
                numbers.shape[0],
                tuple(numbers.shape[2:]),
                **options,
                groups=groups,
                bias=bias is not None,
            )
    layer._parameters["weight"] = nn.Parameter(numbers.detach(), requires_grad=False)
    if bias is not None:
        layer._parameters["bias"] = nn.Parameter(bias[1].detach(), requires_grad=False)
    return layer, owner, given["input"]


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * dims) if len(values) == 1 else tuple(values)


def layer_text(layer: nn.Module) -> str:
    """The call that makes a layer."""
    tensors = [t for t in layer.state_dict().values() if t.is_floating_point()]
    dtype = "" if all(t.dtype == torch.float32 for t in tensors) else f", dtype={tensors[0].dtype}"
    kind = type(layer)
    if kind.__module__.startswith("torch.nn.modules") or isinstance(layer, nn.GroupNorm):
        name = "GroupNorm" if isinstance(layer, nn.GroupNorm) else kind.__name__
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding | nn.LayerNorm | nn.RMSNorm):
            return f"nn.{name}({layer.extra_repr()}{dtype})"
        if isinstance(layer, nn.GroupNorm):
            return f"nn.GroupNorm({layer.num_groups}, {layer.num_channels}, eps={layer.eps}{dtype})"
    raise Unwritable(f"it has a layer {kind.__name__}, which torch.nn has not")
