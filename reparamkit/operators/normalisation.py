"""Norms. Batch norm with running statistics is a scale and a shift per channel:

    a = γ / sqrt(σ² + ε)        y = a·x + (β - a·μ)

Norms by the statistics of their own input are not affine, but end in one:

    y = γ·norm(x) + β
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reparamkit.algebra import AffineMap, Geometry, Map, Numbers, Scalar, ScalarMap, affine, geometry
from reparamkit.operators.base import (
    Affine,
    Call,
    Constant,
    InPassing,
    Meaning,
    NotAffine,
    Rescaled,
    Term,
    Value,
    channel_count,
    reader,
    spatial_axes,
)


class GroupNorm(nn.GroupNorm):
    """torch's, for inputs with a single value in a group as well: the operator takes them."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) to the same."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """torch's, for any number of spatial axes, and inputs with a single position as well."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) to the same."""
        return torch.instance_norm(input, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


@reader("aten.batch_norm.default")
def batch_norm(call: Call) -> Meaning:
    """(N, C, *spatial) with running mean and variance (C,)."""
    value = call.value("input")
    if call.get("training", False):
        if call.get("running_mean") is None:
            raise NotAffine(
                "the batch norm keeps no running statistics, so it normalises by the statistics of each batch"
            )
        raise NotAffine("the batch norm is in training mode: call model.eval() before folding")
    if call.get("running_mean") is None or call.get("running_var") is None:
        raise NotAffine("the batch norm keeps no running statistics")
    mean = call.constant("running_mean", "running mean")
    var = call.constant("running_var", "running variance")
    weight, bias = call.optional("weight", "weight"), call.optional("bias", "bias")
    eps, dims, channels = float(call.get("eps", 1e-5)), spatial_axes(value), value.shape[1]

    def load() -> AffineMap:
        scale = torch.rsqrt(var.load() + eps)
        if weight is not None:
            scale = scale * weight.load()
        shift = (
            mean.load() * -scale if bias is None else torch.addcmul(bias.load(), mean.load(), scale, value=-1)
        )
        return affine.channelwise(scale, shift, dims)

    return Affine((Term(value, geometry.channelwise(channels, dims, has_bias=True), load),))


@reader("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(call: Call) -> Meaning:
    """The norm over the last axes; its weight and bias vary along them."""
    shape = tuple(call.get("normalized_shape"))
    if not all(isinstance(n, int) for n in shape):
        raise NotAffine("it normalises over an axis whose size varies", notable=False)
    eps, value = call.get("eps"), call.value("input")
    if call.target.startswith("aten.rms_norm"):
        return _rescaled(call, value, shape, 0, lambda: nn.RMSNorm(shape, eps, device="meta"))
    return _rescaled(call, value, shape, 0, lambda: nn.LayerNorm(shape, eps, device="meta"))


@reader("aten.group_norm.default")
def group_norm(call: Call) -> Meaning:
    """The norm over groups of channels of (N, C, *spatial)."""
    value, groups, eps = call.value("input"), call.get("num_groups"), call.get("eps")
    dims = spatial_axes(value)
    channels = channel_count(value, dims)
    return _rescaled(call, value, (channels,), dims, lambda: GroupNorm(groups, channels, eps, device="meta"))


@reader("aten.instance_norm.default")
def instance_norm(call: Call) -> Meaning:
    """The norm over each channel of (N, C, *spatial)."""
    if not call.get("use_input_stats", True):
        raise NotAffine("the instance norm uses running statistics", notable=False)
    if call.get("running_mean") is not None:
        raise NotAffine("the instance norm updates running statistics", notable=False)
    value, eps = call.value("input"), call.get("eps")
    dims = spatial_axes(value)
    channels = channel_count(value, dims)
    return _rescaled(
        call, value, (channels,), dims, lambda: InstanceNorm(channels, eps, affine=True, device="meta")
    )


def _rescaled(
    call: Call, value: Value, shape: tuple[int, ...], dims: int, make: Callable[[], nn.Module]
) -> Rescaled:
    """A norm with a weight of this shape, which `dims` axes are behind; `make` makes its module."""
    weight, bias = call.optional("weight", "weight"), call.optional("bias", "bias")
    shifts = "bias" in call.arguments

    def load() -> AffineMap:
        return affine.channelwise(
            torch.ones(shape).double() if weight is None else weight.load(),
            None if bias is None else bias.load(),
            dims,
        )

    behind = None
    if len(shape) == 1 and (weight or bias) is not None:
        behind = Term(value, geometry.channelwise(shape[0], dims, has_bias=bias is not None), load)
    own, bare = (
        _in_passing(shape, dims, make, *given, shifts=shifts) for given in ((weight, bias), (None, None))
    )
    return Rescaled(value, behind, ("weight", "bias"), own, bare)


def _in_passing(
    shape: tuple[int, ...],
    dims: int,
    make: Callable[[], nn.Module],
    weight: Constant | None,
    bias: Constant | None,
    *,
    shifts: bool,
) -> InPassing:
    def fits(structure: Map) -> bool:
        if structure.has_bias and not shifts:
            return False
        if not isinstance(structure, Geometry):
            return isinstance(structure, Scalar)
        axis = structure.dims - dims
        return structure.per_channel and 0 <= axis < len(shape) and structure.outputs == shape[-1 - axis]

    def layer(numbers: Numbers) -> nn.Module:
        """w · norm + b, and the map behind it: s·w and s·b + t."""
        module = make()
        if isinstance(numbers, ScalarMap):
            scale, shift = (torch.tensor(n).double() for n in (numbers.alpha, numbers.beta))
        else:
            sides = (-1, *(1,) * (numbers.structure.dims - dims))
            scale = numbers.kernel.view(sides)
            shift = torch.zeros_like(scale) if numbers.bias is None else numbers.bias.view(sides)
        ones, zeros = torch.ones(shape).double(), torch.zeros(shape).double()
        module.weight = nn.Parameter((ones if weight is None else weight.load()) * scale)
        if hasattr(module, "bias"):
            module.bias = nn.Parameter((zeros if bias is None else bias.load()) * scale + shift)
        return module

    return InPassing(fits, layer)
