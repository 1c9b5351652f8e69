"""Convolutions of small maps, for the new layers' side of the checks in float64.

The original's side is torch's own. In float64 torch computes these sample by sample and group by group: a
depthwise one of a few hundred channels takes a millisecond however small the map is. Here everything under
the window at every position is laid into one row, and all rows of a group are multiplied with its kernel at
once:

    y[n, o, i] = b[o] + Σ_c,t  K[o, c, t] · x[n, c, s·i + δ·t]        (x padded by zeros)
               = b[o] + Σ_k  K[o, k] · row(n, i)[k]                    k = (c, t)

A depthwise one is the sum over its taps of the map as that tap sees it, times one number a channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_AT_ONCE = 1 << 18  # numbers laid out, so that they stay in the processor's cache
_FEW = 64  # positions, or taps; for more of them torch is as fast
_SMALL = 1 << 12  # weights; for fewer of them in one group torch is as fast
_MUCH = 1 << 25  # numbers that torch would lay out at once: beyond that it takes gigabytes


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor | None:
    """What `torch.nn.functional.conv*d` gives for (N, C, *spatial) and (O, C // groups, *window).

    None where torch is better at it, and for what it refuses. Attributes are one number per spatial axis, or
    one for all.

    Raises:
        RuntimeError: the window does not fit in, as for torch.
    """
    outputs, per_group, dims = weight.shape[0], weight.shape[1], weight.ndim - 2
    if x.ndim != weight.ndim or x.shape[1] != per_group * groups:
        return None
    if groups == 1 and weight.numel() < _SMALL:
        return None
    window = weight.shape[2:]
    stride, padding, dilation = (tuple(n) * (dims // len(n)) for n in (stride, padding, dilation))
    sizes = [n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)]
    spans = [d * (w - 1) + 1 for d, w in zip(dilation, window, strict=True)]
    lengths = [(n - m) // s + 1 for n, m, s in zip(sizes, spans, stride, strict=True)]
    if min(lengths) < 1:
        raise RuntimeError(f"a window of {spans} does not fit into {sizes}")
    samples, area, taps = x.shape[0], math.prod(lengths), math.prod(window)
    if per_group == 1 and outputs == groups and taps <= _FEW:
        return _tap_by_tap(x, weight, bias, stride, padding, dilation, lengths)
    positions, row = samples * area, per_group * taps
    if positions > _FEW and (groups == 1 or groups * area * row < _MUCH):
        return None
    if any(padding):
        x = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
    x = x.contiguous()
    whole, channel, *hops = x.stride()
    steps = (*(s * h for s, h in zip(stride, hops, strict=True)), channel)
    laid = x.as_strided(
        (groups, samples, *lengths, per_group, *window),
        (channel * per_group, whole, *steps, *(d * h for d, h in zip(dilation, hops, strict=True))),
    )
    kernel = weight.reshape(groups, outputs // groups, row)
    if groups == 1:
        result = F.linear(laid.reshape(positions, row), kernel[0], bias).view(samples, *lengths, outputs)
        return result.movedim(-1, 1)
    result = x.new_empty(groups, positions, outputs // groups)
    count = max(1, _AT_ONCE // (positions * row))
    for first in range(0, groups, count):
        mine = slice(first, first + count)
        rows = laid[mine].reshape(-1, positions, row)
        torch.bmm(rows, kernel[mine].transpose(1, 2), out=result[mine])
    result = result.view(groups, samples, *lengths, outputs // groups)
    result = result.movedim((0, -1), (1, 2)).reshape(samples, outputs, *lengths)
    return result if bias is None else result.add_(bias.reshape(outputs, *(1,) * dims))


def _tap_by_tap(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    lengths: Sequence[int],
) -> Tensor:
    """A depthwise convolution."""
    if any(padding):
        x = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
    per_channel, kernel = (-1, *(1,) * len(lengths)), weight.flatten(1)
    result = x.new_zeros(*x.shape[:2], *lengths)
    if bias is not None:
        result += bias.view(per_channel)
    for numbered, tap in enumerate(itertools.product(*map(range, weight.shape[2:]))):
        seen = tuple(
            slice(d * t, d * t + s * (n - 1) + 1, s)
            for d, t, s, n in zip(dilation, tap, stride, lengths, strict=True)
        )
        result.addcmul_(x[:, :, *seen], kernel[:, numbered].view(per_channel))
    return result
