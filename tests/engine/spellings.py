"""A border around a value, and values beside each other, spelt in several ways that write in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Amounts = Sequence[int]
"""How many positions before, or behind, each spatial axis."""


def side_by_side(y: Tensor, fill: Tensor, near: Amounts, far: Amounts) -> Tensor:
    """Zero padding, and every side written on its own."""
    z = F.pad(y, [p for pair in zip(near[::-1], far[::-1], strict=True) for p in pair])
    for axis, (before, behind) in enumerate(zip(near, far, strict=True)):
        if before:
            z[_along(axis + 2, slice(0, before))] = fill
        if behind:
            z[_along(axis + 2, slice(-behind, None))] = fill
    return z


def row_by_row(y: Tensor, fill: Tensor, near: Amounts, far: Amounts) -> Tensor:
    """The same, one position after the other."""
    z = F.pad(y, [p for pair in zip(near[::-1], far[::-1], strict=True) for p in pair])
    for axis, (before, behind) in enumerate(zip(near, far, strict=True)):
        row = fill.squeeze(axis + 2)
        for i in (*range(before), *range(-behind, 0)):
            z.select(axis + 2, i).copy_(row)
    return z


def canvas(y: Tensor, fill: Tensor, near: Amounts, far: Amounts) -> Tensor:
    """A filled tensor that the value is written into."""
    sizes = [n + p + q for n, p, q in zip(y.shape[2:], near, far, strict=True)]
    z = fill.expand(*y.shape[:2], *sizes).clone()
    z[(slice(None), slice(None), *(slice(p, -q or None) for p, q in zip(near, far, strict=True)))] = y
    return z


def empty_canvas(y: Tensor, fill: Tensor, near: Amounts, far: Amounts) -> Tensor:
    """One that is filled later, with places told from the front."""
    sizes = [n + p + q for n, p, q in zip(y.shape[2:], near, far, strict=True)]
    z = y.new_empty(*y.shape[:2], *sizes)
    z[:] = fill
    z[(slice(None), slice(None), *(slice(p, p + n) for p, n in zip(near, y.shape[2:], strict=True)))] = y
    return z


def concatenated(y: Tensor, fill: Tensor, near: Amounts, far: Amounts) -> Tensor:
    """Rows before and behind, then columns."""
    for axis, (before, behind) in enumerate(zip(near, far, strict=True), start=2):
        rows = [fill.expand(*y.shape[:axis], n, *y.shape[axis + 1 :]) for n in (before, behind) if n]
        y = torch.cat([*(rows[:1] if before else []), y, *(rows[-1:] if behind else [])], axis)
    return y


def buffer(a: Tensor, b: Tensor) -> Tensor:
    """Two values beside each other along the channels, written into one tensor."""
    z = torch.empty(a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:], dtype=a.dtype)
    z[:, : a.shape[1]] = a
    z[:, a.shape[1] :] = b
    return z


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)
