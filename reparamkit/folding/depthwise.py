"""Convolutions of one channel each, for the checks in float64.

torch computes those channel by channel in float64, in a millisecond for a few hundred channels however small
the map is, and that would be half the time of all checks. Here the taps are laid side by side as a view:

    y[n, c, i] = b[c] + sum over t of  w[c, t] · x[n, c, s·i + δ·t]        (x padded by zeros)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_AT_ONCE = 1 << 18  # products, so that they stay in the processor's cache
_FEW_TAPS = 25  # beyond that torch is as fast
_MUCH = 1 << 25  # and beyond that it takes gigabytes


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor | None:
    """What `torch.nn.functional.conv*d` gives for (N, C, *spatial) and (C, 1, *window).

    None for any other, and where torch is better at it. Attributes are one number per spatial axis, or one
    for all.

    Raises:
        RuntimeError: the window does not fit in, as for torch.
    """
    channels, dims = weight.shape[0], weight.ndim - 2
    if not 1 < channels == groups == x.shape[1] or x.ndim != weight.ndim:
        return None
    stride, padding, dilation = (tuple(n) * (dims // len(n)) for n in (stride, padding, dilation))
    window = weight.shape[2:]
    sizes = [n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)]
    spans = [d * (w - 1) + 1 for d, w in zip(dilation, window, strict=True)]
    lengths = [(n - m) // s + 1 for n, m, s in zip(sizes, spans, stride, strict=True)]
    if min(lengths) < 1:
        raise RuntimeError(f"a window of {spans} does not fit into {sizes}")
    unrolled = math.prod((channels, *lengths, *window))  # numbers that torch lays out at once
    if math.prod(window) > _FEW_TAPS and unrolled < _MUCH:
        return None
    if any(padding):
        x = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
    x = x.contiguous()
    hops = x.stride()[2:]
    positions = [s * h for s, h in zip(stride, hops, strict=True)]
    taps = [d * h for d, h in zip(dilation, hops, strict=True)]
    laid = x.as_strided((*x.shape[:2], *lengths, *window), (*x.stride()[:2], *positions, *taps))
    per_channel = (channels, *(1,) * dims)
    count = min(channels, max(1, _AT_ONCE // math.prod((x.shape[0], *lengths, *window))))
    weight = weight.reshape(*per_channel, *window)
    summed = x.new_empty((*x.shape[:2], *lengths))
    # One buffer for all: freed and taken again, so large pieces would scatter over the heap.
    buffer = x.new_empty((x.shape[0], count, *lengths, *window))
    for first in range(0, channels, count):
        mine = slice(first, first + count)
        part = buffer[:, : min(count, channels - first)]
        torch.mul(laid[:, mine], weight[mine], out=part)
        summed[:, mine] = part.sum(tuple(range(-dims, 0)))
    return summed if bias is None else summed + bias.reshape(per_channel)
