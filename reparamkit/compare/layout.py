"""Tell a tensor in another layout from one that is merely wrong: NHWC for NCHW, axes dropped, a reshape."""

from __future__ import annotations

import itertools
import math

import torch

_MOST_AXES = 5
_CLOSE = 1e-2


def permutation(values: torch.Tensor, truth: torch.Tensor) -> tuple[int, ...] | None:
    """The order of axes for which `truth.permute(order)` is what `values` holds, to within 1 % of its scale.

    None where there is no such order, or the tensors are alike as they are.
    """
    if values.ndim != truth.ndim or not 2 <= truth.ndim <= _MOST_AXES or truth.numel() < 2:
        return None
    if values.shape == truth.shape and _close(values, truth):
        return None
    for order in itertools.permutations(range(truth.ndim)):
        turned = truth.permute(order)
        if order != tuple(range(truth.ndim)) and values.shape == turned.shape and _close(values, turned):
            return order
    return None


def permuted_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of axes that turns the shape `wanted` into `found`; channels-last is tried first."""
    count = len(wanted)
    if len(shape) != count or shape == wanted or sorted(shape) != sorted(wanted) or count > _MOST_AXES:
        return None
    channels_last = (0, *range(2, count), 1)
    channels_first = (0, count - 1, *range(1, count - 1))
    for order in (channels_last, channels_first, *itertools.permutations(range(count))):
        if shape == tuple(wanted[axis] for axis in order):
            return order
    return None


def in_words(values: torch.Tensor, truth: torch.Tensor) -> str:
    """What a tensor looks like in place of `truth`, as the end of a sentence; empty where like nothing."""
    order = permutation(values, truth)
    if order is not None:
        return f": it looks like the reference's with axes permuted ({', '.join(map(str, order))})"
    reshaped = values.shape != truth.shape and values.numel() == truth.numel() > 1
    if reshaped and _close(values.flatten(), truth.flatten()):
        return ": it holds the reference's values in another shape"
    return ""


def _close(left: torch.Tensor, right: torch.Tensor) -> bool:
    left, right = left.double(), right.double()
    both = left.isfinite() & right.isfinite()
    if not bool(both.any()) or not torch.equal(left.isfinite(), right.isfinite()):
        return False
    scale = float(right[both].abs().max())
    error = float((left[both] - right[both]).abs().max())
    return math.isfinite(error) and scale > 0 and error <= _CLOSE * scale
