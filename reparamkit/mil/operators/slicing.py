"""Slices.

    slice_by_index  x[begin[i] : end[i] : stride[i], …] as in NumPy; begin_mask and end_mask leave a bound
                    open, squeeze_mask takes the one element at begin[i] and drops the axis
    slice_by_size   `size` elements from `begin` on along each axis, -1 for all that follow
    slice_update    x with `update` in the place that slice_by_index would take

Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_transformation.py and iOS18 (slice_update).
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator

_BOUNDS = "begin end stride begin_mask end_mask squeeze_mask"


@operator("slice_by_index", f"x {_BOUNDS}")
def slice_by_index(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    places, dropped = _places(call, list(x.shape))
    for axis, place in enumerate(places):
        x = _taken(x, axis, place)
    return x.squeeze(dropped) if dropped else x


@operator("slice_by_size", "x begin size")
def slice_by_size(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    for axis, (begin, size) in enumerate(zip(call.integers("begin"), call.integers("size"), strict=True)):
        start = begin + x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, start, x.shape[axis] - start if size == -1 else size)
    return x


@operator("slice_update", f"x update {_BOUNDS}")
def slice_update(call: Call) -> torch.Tensor:
    x, update = call.tensor("x"), call.tensor("update")
    places, dropped = _places(call, list(x.shape))
    for axis in sorted(dropped):
        update = update.unsqueeze(axis)
    if list(update.shape) != [len(place) for place in places]:
        raise CannotEvaluate(f"has an update of the shape {tuple(update.shape)} for another slice")
    where = torch.meshgrid(*(torch.tensor(list(place)) for place in places), indexing="ij")
    return x.index_put(where, update)


def _places(call: Call, shape: list[int]) -> tuple[list[range], list[int]]:
    """The indices along each axis, and the axes that are dropped."""
    rank = len(shape)
    no = [False] * rank
    bounds = zip(
        shape,
        call.integers("begin"),
        call.integers("end"),
        call.integers("stride", [1] * rank),
        call.flags("begin_mask", no),
        call.flags("end_mask", no),
        call.flags("squeeze_mask", no),
        strict=True,
    )
    places: list[range] = []
    dropped: list[int] = []
    for axis, (size, begin, end, stride, from_start, to_end, one) in enumerate(bounds):
        if one:
            first = 0 if from_start else begin
            if not -size <= first < size:
                raise CannotEvaluate(f"has the index {first} for an axis of {size}")
            places.append(range(first % size, first % size + 1))
            dropped.append(axis)
        else:
            cut = slice(None if from_start else begin, None if to_end else end, stride)
            places.append(range(*cut.indices(size)))
    return places, dropped


def _taken(x: torch.Tensor, axis: int, place: range) -> torch.Tensor:
    if len(place) == x.shape[axis] and place.step > 0:
        return x
    if place.step > 0:
        return x[(slice(None),) * axis + (slice(place.start, place.stop, place.step),)]
    return x.index_select(axis, torch.tensor(list(place), dtype=torch.int64))
