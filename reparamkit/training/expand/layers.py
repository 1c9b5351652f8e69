"""What branches are made of, for one, two and three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reparamkit.training.expand import exact
from reparamkit.training.expand.geometry import Geometry, Part, zero_border

CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLINGS: tuple[Any, ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_FUNCTIONS: tuple[Any, ...] = (F.conv1d, F.conv2d, F.conv3d)

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def norm(axes: int, factor: exact.Array, like: Tensor) -> Norm:
    """A batch norm that multiplies each channel by a factor in evaluation mode, and shifts none."""
    layer: Norm = NORMS[axes - 1](len(factor), device=like.device, dtype=like.dtype)
    set_statistics(layer, np.zeros(len(factor)), np.ones(len(factor)), factor)
    return layer


def set_statistics(
    batch_norm: Norm, mean: exact.Array, variance: exact.Array, factor: exact.Array | None = None
) -> None:
    """Give a norm running statistics, and the weight and bias with which it goes on multiplying by `factor`.

    Raises:
        exact.NotRepresentable: a number overflows in the norm's precision.
    """
    assert batch_norm.running_var is not None
    assert batch_norm.num_batches_tracked is not None
    if factor is None:
        deviation = np.sqrt(exact.array(batch_norm.running_var) + batch_norm.eps)
        factor = exact.array(batch_norm.weight) / deviation
    numbers, batch_norm.eps = exact.norm_numbers(factor, mean, variance, batch_norm.weight.dtype)
    with torch.no_grad():
        for name, values in numbers.items():
            held = getattr(batch_norm, name)
            held.copy_(exact.tensor(values, held))
        batch_norm.num_batches_tracked.fill_(1)


def convolution(
    weight: exact.Array,
    like: Tensor,
    *,
    groups: int = 1,
    stride: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
) -> nn.Module:
    """A convolution without a bias that has this kernel (O, I/groups, *spatial)."""
    axes = weight.ndim - 2
    layer: nn.Module = CONVOLUTIONS[axes - 1](
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        tuple(stride or (1,) * axes),
        tuple(padding or (0,) * axes),
        tuple(dilation or (1,) * axes),
        groups,
        bias=False,
        device=like.device,
        dtype=like.dtype,
    )
    with torch.no_grad():
        layer.get_parameter("weight").copy_(exact.tensor(weight, like))
    return layer


def named(**layers: nn.Module | None) -> nn.Sequential:
    """Those of the layers that there are, one after the other."""
    chain = nn.Sequential()
    for name, layer in layers.items():
        if layer is not None:
            chain.add_module(name, layer)
    return chain


def conv_norm(
    kernel: exact.Array, part: Part, geometry: Geometry, groups: int, factor: float, like: Tensor
) -> nn.Sequential:
    """A convolution with a part of a kernel, and a batch norm that multiplies by `factor`.

    Together they compute what the convolution with that part of `kernel` does, at the same places.
    """
    low, high = geometry.padding(part)
    own = low == high and min(low) >= 0
    taps = kernel[(slice(None), slice(None), *part.taps())]
    conv = convolution(
        taps / factor,
        like,
        groups=groups,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=low if own else None,
    )
    bn = norm(geometry.axes, np.full(len(kernel), factor), like)
    return named(pad=None if own else zero_border(low, high), conv=conv, bn=bn)


class IdentityPlusPointwise(nn.Module):
    """A pointwise convolution whose kernel is stored as its difference to the identity: (N, C, *) -> same.

    The difference starts at zero, as in the authors' code of the Diverse Branch Block.
    """

    identity: Tensor

    def __init__(self, channels: int, groups: int, axes: int, like: Tensor) -> None:
        super().__init__()
        inside = channels // groups
        shape = (channels, inside, *(1,) * axes)
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(shape, device=like.device, dtype=like.dtype))
        identity = torch.eye(inside, device=like.device, dtype=like.dtype).repeat(groups, 1)
        self.register_buffer("identity", identity.reshape(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        convolve = _FUNCTIONS[self.weight.ndim - 3]
        out: Tensor = convolve(x, self.weight + self.identity, groups=self.groups)
        return out

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, groups={self.groups}"
