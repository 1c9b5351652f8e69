"""From the numbers of a form to the layers that replace it.

    Σ map_i(source_i) + b   ──▶   conv_1(source_1) + conv_2(source_2) + source_3 + …

Every map becomes an `nn.Conv1d/2d/3d`, `nn.ConvTranspose1d/2d/3d` or `nn.Linear` with a bias, convolutions
behind an explicit zero padding or crop where the two sides differ; plain copies and multiples of a source
join in the sum. A map per channel on the last axis, where a linear layer would be dense, becomes a product
and a sum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.algebra import AffineMap, Geometry, ScalarMap, Transposed
from reparamkit.algebra.affine import placed
from reparamkit.algebra.transposed import exchanged, realisable
from reparamkit.engine.form import Terms
from reparamkit.engine.unrolled import convolve
from reparamkit.operators import InPassing
from reparamkit.operators.normalisation import GroupNorm, InstanceNorm

aten = torch.ops.aten


class ChannelScale(nn.Module):
    """y = weight · x + bias, or without bias; both (channels, 1, …) with as many ones as spatial axes."""

    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels, *spatial) to the same."""
        scaled = x * self.weight
        return scaled if self.bias is None else scaled + self.bias


@dataclass(frozen=True)
class Piece:
    """One of the pieces of what a layer gives: `sizes` are those of all of them along `axis`."""

    number: int
    sizes: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Layer:
    """A module (none: just the padding) on one source, after `pad` as for `torch.nn.functional.pad`.

    With a `piece`, others have the module as well, and each takes its own piece of the result.
    """

    source: int
    module: nn.Module | None
    pad: tuple[int, ...] | None
    piece: Piece | None = None


@dataclass(frozen=True)
class Realisation:
    """layers + factors · sources + shift."""

    layers: tuple[Layer, ...]
    factors: tuple[tuple[int, float], ...]
    shift: float

    def build(
        self, source: Callable[[int], Any], function: Callable[..., Any], layer: Callable[[int, Any], Any]
    ) -> Any:
        """Build the sum from the three ways to make a value, whether these run it or write it down."""
        terms: list[tuple[Any, float]] = []
        for i, item in enumerate(self.layers):
            x = source(item.source)
            if item.pad is not None:
                x = function(aten.constant_pad_nd.default, x, list(item.pad))
            terms.append((x if item.module is None else layer(i, x), 1.0))
        terms += [(source(s), factor) for s, factor in self.factors]
        terms.sort(key=lambda t: t[1] != 1.0)
        result, factor = terms[0]
        if factor != 1.0:
            result = function(aten.mul.Tensor, result, factor)
        for other, factor in terms[1:]:
            if factor == 1.0:
                result = function(aten.add.Tensor, result, other)
            elif factor == -1.0:
                result = function(aten.sub.Tensor, result, other)
            else:
                result = function(aten.add.Tensor, result, function(aten.mul.Tensor, other, factor))
        if self.shift != 0.0:
            result = function(aten.add.Tensor, result, self.shift)
        return result

    def run(self, values: dict[int, Tensor]) -> Tensor:
        """Compute the sum, in float64."""

        def layer(i: int, x: Tensor) -> Tensor:
            module, piece = self.layers[i].module, self.layers[i].piece
            assert module is not None
            whole = applied(module, x)
            return whole if piece is None else torch.split(whole, list(piece.sizes), piece.axis)[piece.number]

        result: Tensor = self.build(values.__getitem__, lambda op, *args: op(*args), layer)
        return result

    @property
    def is_identity(self) -> bool:
        """Whether the sum is one of its sources under another name."""
        return not self.layers and len(self.factors) == 1 and self.factors[0][1] == 1.0 and self.shift == 0.0

    @property
    def per_channel(self) -> bool:
        """Whether no layer looks at more than one channel and one position at a time."""
        return all(
            item.pad is None and (isinstance(item.module, ChannelScale) or _is_depthwise_1x1(item.module))
            for item in self.layers
        )

    @property
    def operators(self) -> Counter[str]:
        """How many of each operator it takes, by ATen's names."""
        names: list[str] = []

        def function(op: Any, *_: Any) -> None:
            names.append(op._schema.name.removeprefix("aten::"))

        def layer(i: int, _: Any) -> None:
            module = self.layers[i].module
            if module is not None:
                names.extend(operators_of(module))

        self.build(lambda s: None, function, layer)
        return Counter(names)

    def rounded(self, like: Tensor) -> bool:
        """Round every number once, to the number type and device of `like`.

        False if one overflows, or if a layer or factor that is not zero vanishes.
        """
        for item in self.layers:
            for parameter in item.module.parameters() if item.module is not None else ():
                exact = parameter.detach()
                rounded = exact.to(dtype=like.dtype, device=like.device)
                parameter.data = rounded
                size = largest(rounded)
                if not math.isfinite(size) or (size == 0.0 and largest(exact) > 0.0):
                    return False
        numbers = [factor for _, factor in self.factors] + [self.shift]
        if all(n in (0.0, 1.0) for n in numbers):
            return True
        kept = torch.tensor(numbers, dtype=torch.float64).to(like.dtype)
        return bool(torch.isfinite(kept).all()) and all(
            bool(k != 0) == (n != 0) for k, n in zip(kept, numbers, strict=True)
        )


def largest(numbers: Tensor) -> float:
    """The largest magnitude; NaN if there is one."""
    if not numbers.numel():
        return 0.0
    low, high = (float(n) for n in torch.aminmax(numbers))
    return max(-low, high) if low == low else math.nan


def _is_depthwise_1x1(module: nn.Module | None) -> bool:
    if not isinstance(module, _CONVS):
        return False
    per_channel = module.groups == module.in_channels == module.out_channels
    return per_channel and all(n == 1 for n in (*module.kernel_size, *module.stride))


_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NAMES: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
    nn.Linear: "linear",
    nn.Embedding: "embedding",
    nn.LayerNorm: "layer_norm",
    nn.RMSNorm: "rms_norm",
    GroupNorm: "group_norm",
    InstanceNorm: "instance_norm",
}


def operators_of(module: nn.Module) -> list[str]:
    """The operators that a layer comes to, by ATen's names."""
    if isinstance(module, ChannelScale):
        return ["mul"] if module.bias is None else ["mul", "add"]
    return [_NAMES.get(type(module), type(module).__name__)]


def realise(
    terms: Terms,
    norm: InPassing | None = None,
    integers: Collection[int] = frozenset(),
    *,
    named_padding: bool = False,
) -> Realisation:
    """The layers for these numbers, in float64.

    `norm` is what takes them into its own weight and bias; of the sources, `integers` look up in tables.
    `named_padding` allows padding="same" for uneven sides, at whose first use torch warns of a copy.
    """
    if norm is not None:
        ((source, behind),) = terms.items()
        return Realisation((Layer(source, norm.layer(behind), None),), (), 0.0)
    maps = [(s, m) for s, m in terms.items() if isinstance(m, AffineMap)]
    scalars = [(s, m) for s, m in terms.items() if isinstance(m, ScalarMap)]
    shift = sum(m.beta for _, m in scalars)
    biases = _gathered([m for _, m in maps])
    layers, factors = [], [(s, m.alpha) for s, m in scalars]
    for i, ((source, m), bias) in enumerate(zip(maps, biases, strict=True)):
        if bias.any() or i == len(maps) - 1:
            bias, shift = bias + shift, 0.0
        if source in integers:
            table = _made(nn.Embedding, m.structure.inputs, m.structure.outputs)
            weight = nn.Parameter((m.kernel.t() + bias).contiguous())
            layers.append(Layer(source, with_numbers(table, {"weight": weight}), None))
            continue
        if isinstance(m.structure, Transposed):
            layers.append(Layer(source, _scattering(m, realisable(m.structure), bias), None))
            continue
        if m.structure.unit and all(s == 1 for s in m.structure.stride) and not bias.any():
            if any(_sides(m.structure)):
                layers.append(Layer(source, None, _sides(m.structure)))
            else:
                factors.append((source, 1.0))
        else:
            same = named_padding and _is_same(m.structure)
            pad = None if same else _padding(m.structure)
            layers.append(Layer(source, _module(m.structure, m.kernel, bias, same=same), pad))
    return Realisation(tuple(layers), tuple(factors), shift)


def _gathered(maps: list[AffineMap]) -> list[Tensor]:
    """The bias of each map, all of them given to the one map that is a layer with a bias anyway.

    A map per channel beside it is then a product alone. Maps with channels on different axes keep their own.
    """
    biases = [m.kernel.new_zeros(m.structure.outputs) if m.bias is None else m.bias for m in maps]
    if len(maps) < 2:
        return biases
    carrier = next((i for i, m in enumerate(maps) if not m.structure.per_channel), None)
    if carrier is None or len({m.structure.dims for m in maps}) > 1:
        return biases
    total = torch.stack(biases).sum(0)
    return [total if i == carrier else torch.zeros_like(b) for i, b in enumerate(biases)]


def layer_of(g: Geometry, kernel: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer with the structure `g` and these numbers; its padding must be even."""
    if bias is not None:
        return _module(g, kernel, bias, same=False)
    return with_numbers(_module(g, kernel, kernel.new_zeros(g.outputs), same=False), {"bias": None})


def _module(g: Geometry, kernel: Tensor, bias: Tensor, *, same: bool) -> nn.Module:
    if g.per_channel and g.inputs > 1 and (g.dims == 0 or not bias.any()):
        shape = (-1, *(1,) * g.dims)
        return ChannelScale(kernel.reshape(shape), bias.reshape(shape) if bias.any() else None)
    if g.dims == 0:
        linear = _made(nn.Linear, g.inputs, g.outputs)
        return _filled(linear, kernel, bias)
    conv = _made(
        _CONVS[g.dims - 1],
        g.inputs,
        g.outputs,
        g.window,
        stride=g.stride,
        padding="same" if same else (0,) * g.dims if _padding(g) else g.near,
        dilation=g.dilation,
        groups=g.groups,
    )
    return _filled(conv, kernel, bias)


def _scattering(m: AffineMap, t: Transposed, bias: Tensor) -> nn.Module:
    conv = _made(
        _TRANSPOSED[t.dims - 1],
        t.inputs,
        t.outputs,
        t.window,
        stride=t.stride,
        padding=t.padding,
        output_padding=t.output_padding,
        dilation=t.dilation,
        groups=t.groups,
    )
    return _filled(conv, exchanged(placed(m, t), t.groups), bias)


@lru_cache(maxsize=1024)
def _made(kind: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """A layer without numbers, to be copied. Its usual start takes longer than the fold of a small one."""
    without_start = type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})
    module: nn.Module = without_start(*args, **kwargs, device="meta")
    module.__class__ = kind
    return module


def _filled(module: nn.Module, kernel: Tensor, bias: Tensor) -> nn.Module:
    weight, shift = nn.Parameter(kernel.contiguous()), nn.Parameter(bias.contiguous())
    return with_numbers(module, {"weight": weight, "bias": shift})


def applied(layer: nn.Module, x: Tensor) -> Tensor:
    """What a new layer gives in float64; some convolutions by a faster way than torch's."""
    if isinstance(layer, _CONVS) and not isinstance(padding := layer.padding, str):
        convolved = convolve(x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
        if convolved is not None:
            return convolved
    result: Tensor = layer(x)
    return result


def with_numbers(layer: nn.Module, numbers: Mapping[str, Any]) -> nn.Module:
    """The same layer with other parameters."""
    module = layer.__class__.__new__(layer.__class__)
    module.__dict__.update({k: v.copy() if isinstance(v, dict | set) else v for k, v in vars(layer).items()})
    module._parameters.update(numbers)
    return module


def _padding(g: Geometry) -> tuple[int, ...] | None:
    """What a padding of its own has to add; None where the convolution's own padding does."""
    return None if g.near == g.far and all(p >= 0 for p in g.near) else _sides(g)


def _is_same(g: Geometry) -> bool:
    """Whether it is uneven padding as torch has it for padding="same", the odd one on the far side."""
    uneven = [f - n for n, f in zip(g.near, g.far, strict=True)]
    return set(uneven) <= {0, 1} and any(uneven) and not any(g.extent) and all(s == 1 for s in g.stride)


def _sides(g: Geometry) -> tuple[int, ...]:
    return tuple(p for axis in reversed(range(g.dims)) for p in (g.near[axis], g.far[axis]))
