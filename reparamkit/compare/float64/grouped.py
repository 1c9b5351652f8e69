"""A grouped convolution in float64, tap by tap.

torch has no fast float64 kernel for grouped convolutions on the CPU: it runs one small matrix product per
group and sample, which is most of the time of a depthwise network. With T taps, and the input shifted by one,

    y[n, g] = sum over t of  K[g, :, :, t] @ x[n, g, :, s·i + d·t - p]

is T batched products over all groups at once, and where each group has one input channel T scaled sums.

The engine has a convolution of its own for its proofs. Sharing one would let a mistake in it prove a fold
and pass the comparison that is to catch it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F


def grouped_convolution(
    values: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """What `aten::convolution` computes (not transposed), for any number of spatial axes.

    Args:
        values: (batch, channels, *size).
        kernel: (out channels, channels / groups, *window).
        bias: (out channels,) or None.
        stride, padding, dilation: one number per spatial axis, or one for all.
        groups: a divisor of both channel counts.

    Returns:
        (batch, out channels, *size), in the dtype of `values`.
    """
    window = kernel.shape[2:]
    axes = len(window)
    stride, padding, dilation = (_per_axis(setting, axes) for setting in (stride, padding, dilation))
    values = F.pad(values, [amount for side in reversed(padding) for amount in (side, side)])
    batch, channels, *size = values.shape
    out = [
        (length - step * (taps - 1) - 1) // jump + 1
        for length, taps, jump, step in zip(size, window, stride, dilation, strict=True)
    ]
    per_group = kernel.shape[0] // groups
    grouped = values.reshape(batch, groups, channels // groups, *size)
    total = values.new_zeros(batch, groups, per_group, *out)
    for tap in itertools.product(*map(range, window)):
        reach: list[Any] = [
            slice(step * offset, step * offset + jump * (length - 1) + 1, jump)
            for offset, length, jump, step in zip(tap, out, stride, dilation, strict=True)
        ]
        seen = grouped[(..., *reach)]
        at_tap: tuple[Any, ...] = (..., *tap)
        weights = kernel[at_tap].reshape(groups, per_group, -1)
        if channels == groups:
            total.addcmul_(weights.reshape(groups, per_group, *[1] * axes), seen)
        else:
            product = weights @ seen.reshape(batch, groups, channels // groups, -1)
            total += product.reshape(total.shape)
    result = total.reshape(batch, kernel.shape[0], *out)
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def _per_axis(setting: Sequence[int], axes: int) -> list[int]:
    return list(setting) * axes if len(setting) == 1 else list(setting)
