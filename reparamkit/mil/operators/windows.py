"""Where the windows of a convolution or a pooling lie.

    valid        no padding
    custom       `pad` says how many elements are added before and after each spatial axis
    same         as many outputs as ceil(n / stride): max(0, (ceil(n / stride) - 1)·stride + extent - n)
                 elements are added, half of them before and half after, an odd one after
    same_lower   the same number, an odd one before

The MIL reference describes `same` twice, once by these output lengths and once by a formula in which the
stride does not occur. coremltools infers shapes by the first, which is TensorFlow's SAME, whose converter
maps SAME to it; so that one is meant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate

Pads = list[tuple[int, int]]


def extents(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """How far a window reaches along each axis."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def paddings(
    call: Call, kind: str, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> Pads:
    """How many elements are added before and after each spatial axis.

    Args:
        call: for its `pad`.
        kind: the `pad_type`.
        sizes: length of each axis.
        reach: extent of the window.
        strides: its steps.

    Raises:
        CannotEvaluate: the `pad_type` is unknown, or `pad` does not fit.
    """
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        pad = call.integers("pad", [0] * (2 * len(sizes)))
        if len(pad) != 2 * len(sizes):
            raise CannotEvaluate(f"has {len(pad)} values for pad, {2 * len(sizes)} are needed")
        return list(zip(pad[::2], pad[1::2], strict=True))
    if kind not in ("same", "same_lower"):
        raise CannotEvaluate(f"has the unknown pad_type {kind!r}")
    pairs = []
    for size, extent, stride in zip(sizes, reach, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + extent - size)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if kind == "same" else (large, small))
    return pairs


def padded(x: torch.Tensor, pads: Pads, value: float = 0.0) -> torch.Tensor:
    """x with elements added around its last axes; fewer than none are cut off."""
    flat = [number for before, after in reversed(pads) for number in (before, after)]
    return F.pad(x, flat, value=value) if any(flat) else x


def spatial(call: Call, name: str, rank: int, default: int = 1) -> list[int]:
    """One number for each spatial axis.

    Raises:
        CannotEvaluate: there are more or fewer.
    """
    numbers = call.integers(name, [default] * rank)
    if len(numbers) != rank:
        raise CannotEvaluate(f"has {len(numbers)} values for {name}, {rank} are needed")
    return numbers
