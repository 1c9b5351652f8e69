"""Zero padding and crops of the spatial axes: a one-tap window that starts before or after its input.

pad (p, q):   y[i] = x[i - p],  len(y) = n + p + q        (negative: a crop)
x[a:-b:s]:    y[i] = x[a + s·i]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from reparamkit.algebra import AffineMap, geometry
from reparamkit.algebra.geometry import Geometry
from reparamkit.operators.base import (
    Affine,
    Call,
    Meaning,
    Move,
    NotAffine,
    Term,
    Value,
    Work,
    channel_count,
    identity,
    reader,
)
from reparamkit.operators.layout import spatial


@reader("aten.constant_pad_nd.default", "aten.pad.default")
def pad(call: Call) -> Meaning:
    """`torch.nn.functional.pad`: by zeros a map; by what is there, it moves values."""
    value = call.value("self")
    mode = call.get("mode", "constant")
    if mode != "constant":
        amounts = list(call.get("pad"))
        moved = spatial(value, len(amounts) // 2, call.result.sizes)
        whole = [*amounts, *(0,) * (2 * (value.ndim - 2) - len(amounts))]
        fixed = value.ndim <= 5 and all(isinstance(n, int) and n >= 0 for n in whole)
        pads = (mode, tuple(whole[-2::-2]), tuple(whole[-1::-2])) if fixed else None
        return replace(moved, pads=pads, reason=f"it pads by mode {mode!r}, not with zeros")
    if call.get("value") not in (None, 0, 0.0):
        raise NotAffine(f"it pads with {call.get('value')}, not with zeros")
    amounts = list(call.get("pad"))
    if not all(isinstance(a, int) for a in amounts):
        raise NotAffine("its amount of padding depends on a size that varies")
    while len(amounts) > 2 and not any(amounts[-2:]):
        amounts = amounts[:-2]
    dims = _spatial(value, len(amounts) // 2)
    near, far = [0] * dims, [0] * dims
    for i in range(len(amounts) // 2):
        near[dims - 1 - i], far[dims - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    return one_tap(value, padded(value, near, far), Work.COPY)


def padded(value: Value, near: Sequence[int], far: Sequence[int]) -> Geometry:
    """Zeros before and behind each spatial axis of a feature map; less than none cuts off."""
    dims = _spatial(value, len(near))
    return replace(
        geometry.channelwise(channel_count(value, dims), dims, has_bias=False),
        lo=tuple(-p for p in near),
        extent=tuple(p + q for p, q in zip(near, far, strict=True)),
        unit=True,
    )


@reader("aten.narrow.default")
def narrow(call: Call) -> Meaning:
    """`length` positions of an axis from `start` on."""
    start, length = call.get("start"), call.get("length")
    if not isinstance(start, int) or not isinstance(length, int):
        raise NotAffine("its bounds depend on a size that varies", notable=False)
    axis = call.value("self").axis(call.get("dim"))
    size = call.value("self").sizes[axis]
    if start < 0 and not isinstance(size, int):
        raise NotAffine("it cuts to a fixed length, not by a fixed margin", notable=False)
    start = start % size if isinstance(size, int) and start < 0 else start
    return _taken(call, axis, start, start + length, 1)


@reader("aten.slice.Tensor")
def crop(call: Call) -> Meaning:
    """`x[..., start:end:step]`: a crop along a spatial axis, or a piece of an axis of one length."""
    axis = call.value("self").axis(call.get("dim", 0))
    return _taken(call, axis, call.get("start"), call.get("end"), call.get("step", 1))


def _taken(call: Call, axis: int, start: int | None, end: int | None, step: int) -> Meaning:
    value = call.value("self")
    start = 0 if start is None else start
    end = sys.maxsize if end is None else end
    if not all(isinstance(i, int) for i in (start, end, step)):
        raise NotAffine("its bounds depend on a size that varies", notable=False)
    size = value.sizes[axis]
    if end >= 0 and isinstance(size, int) and end >= size:
        end = sys.maxsize
    if start == 0 and end == sys.maxsize and step == 1:
        return identity(value)
    if call.result.shape[axis] == 0:
        raise NotAffine("it cuts everything off", notable=False)
    if start < 0 or 0 <= end < sys.maxsize or not value.ndim - axis <= value.ndim - 2 <= 3:
        if not isinstance(size, int):
            raise NotAffine("it cuts to a fixed length, not by a fixed margin", notable=False)
        first, length = range(size)[start:end:step].start, call.result.shape[axis]
        return Move(value, lambda layout: layout.cut(axis, first, length, step), cuts=True, alone=True)
    dims = _spatial(value, value.ndim - axis)
    where = axis - (value.ndim - dims)
    cut = -end if end < 0 else 0
    flat = geometry.channelwise(channel_count(value, dims), dims, has_bias=False)

    def at(existing: tuple[int, ...], new: int) -> tuple[int, ...]:
        return (*existing[:where], new, *existing[where + 1 :])

    structure = replace(
        flat,
        lo=at(flat.lo, start),
        extent=at(flat.extent, -start - cut),
        stride=at(flat.stride, step),
        unit=True,
    )
    return one_tap(value, structure, Work.VIEW)


def _spatial(value: Value, needed: int) -> int:
    """Spatial axes of a batched feature map, if that leaves enough of them."""
    if needed <= value.ndim - 2 <= 3:
        return value.ndim - 2
    raise NotAffine("it reaches beyond the spatial axes")


def one_tap(value: Value, structure: Geometry, work: Work) -> Affine:
    """A value moved, one tap per channel."""

    def load() -> AffineMap:
        return AffineMap(
            structure, torch.ones(structure.outputs, 1, *structure.window, dtype=torch.float64), None
        )

    return Affine((Term(value, structure, load),), work)
