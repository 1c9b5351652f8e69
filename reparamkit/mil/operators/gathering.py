"""gather, scatter and one_hot.

    gather             x at `indices` along `axis` (0); the indices' axes stand in its place. The first
                       batch_dims axes of both belong together
    gather_along_axis  y[…, i, …] = x[…, indices[…, i, …], …] along `axis` (0)
    gather_nd          y[i…] = x[indices[i…, :]], the last axis of indices holding places along the first axes
                       of x that follow the batch_dims
    scatter, scatter_along_axis, scatter_nd  data, combined with `updates` where gather… would take them: by
                                             `mode`
                       update, add, sub, mul, div, max or min (add)
    one_hot            on_value (1) where the index along the new `axis` (-1) is indices[…], off_value (0)
                       elsewhere

Negative indices count from the end before iOS 17; since then they are out of bounds, and what lies out of
bounds is not defined, so it is refused. Of several updates of one place by "update" the last counts, as in
NumPy. Source: coremltools/converters/mil/mil/ops/defs/iOS15/scatter_gather.py, iOS16 (batch_dims) and iOS17.
"""

from __future__ import annotations

import math

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, operator

_IOS17 = 7
_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("gather", "x indices axis batch_dims validate_indices")
def gather(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axis, batch = axis_of(call.integer("axis", 0), x.dim()), call.integer("batch_dims", 0)
    indices = _checked(call, call.tensor("indices"), x.shape[axis])
    if batch > min(axis, indices.dim()):
        raise CannotEvaluate(f"has batch_dims {batch} for the axis {axis}")
    inner = indices.shape[batch:]
    if not batch:
        taken = x.index_select(axis, indices.reshape(-1))
        return taken.reshape((*x.shape[:axis], *inner, *x.shape[axis + 1 :]))
    flat = indices.reshape(*indices.shape[:batch], *[1] * (axis - batch), -1, *[1] * (x.dim() - axis - 1))
    taken = torch.gather(x, axis, flat.expand(*x.shape[:axis], -1, *x.shape[axis + 1 :]))
    return taken.reshape((*x.shape[:axis], *inner, *x.shape[axis + 1 :]))


@operator("gather_along_axis", "x indices axis validate_indices")
def gather_along_axis(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axis = axis_of(call.integer("axis", 0), x.dim())
    return torch.gather(x, axis, _checked(call, call.tensor("indices"), x.shape[axis]))


@operator("gather_nd", "x indices batch_dims validate_indices")
def gather_nd(call: Call) -> torch.Tensor:
    x, batch = call.tensor("x"), call.integer("batch_dims", 0)
    shape = call.tensor("indices").shape
    depth = shape[-1]
    rest = x.shape[batch + depth :]
    # One row of places per sample, and the slices in one axis.
    flat = x.reshape(math.prod(x.shape[:batch]), -1, *rest)
    places = _flat_places(call, list(x.shape[batch : batch + depth])).reshape(flat.shape[0], -1)
    taken = torch.stack([sample[place] for sample, place in zip(flat, places, strict=True)])
    return taken.reshape(*shape[:-1], *rest)


@operator("scatter", "data indices updates axis mode validate_indices")
def scatter(call: Call) -> torch.Tensor:
    data, updates = call.tensor("data"), call.tensor("updates")
    axis = axis_of(call.integer("axis", 0), data.dim())
    indices = _checked(call, call.tensor("indices"), data.shape[axis])
    flat = indices.reshape(-1, *[1] * (data.dim() - axis - 1)).expand(updates.shape)
    return _combined(data, axis, flat, updates, call.text("mode", "add"))


@operator("scatter_along_axis", "data indices updates axis mode validate_indices")
def scatter_along_axis(call: Call) -> torch.Tensor:
    data = call.tensor("data")
    axis = axis_of(call.integer("axis", 0), data.dim())
    indices = _checked(call, call.tensor("indices"), data.shape[axis])
    return _combined(data, axis, indices, call.tensor("updates"), call.text("mode", "add"))


@operator("scatter_nd", "data indices updates mode validate_indices")
def scatter_nd(call: Call) -> torch.Tensor:
    data, updates = call.tensor("data"), call.tensor("updates")
    depth = call.tensor("indices").shape[-1]
    rest = math.prod(data.shape[depth:])
    places = _flat_places(call, list(data.shape[:depth])).reshape(-1, 1).expand(-1, rest)
    flat = data.reshape(math.prod(data.shape[:depth]), rest)
    y = _combined(flat, 0, places, updates.reshape(-1, rest), call.text("mode", "add"))
    return y.reshape(data.shape)


@operator("one_hot", "indices one_hot_vector_size axis on_value off_value")
def one_hot(call: Call) -> torch.Tensor:
    indices = call.tensor("indices")
    axis = axis_of(call.integer("axis", -1), indices.dim() + 1)
    values = torch.arange(call.integer("one_hot_vector_size")).reshape(-1, *[1] * (indices.dim() - axis))
    hot = indices.unsqueeze(axis) == values
    dtype = call.operation.outputs[0].dtype
    on = call.tensor("on_value") if call.has("on_value") else torch.tensor(1, dtype=dtype)
    off = call.tensor("off_value") if call.has("off_value") else torch.tensor(0, dtype=dtype)
    return torch.where(hot, on, off)


def _flat_places(call: Call, sizes: list[int]) -> torch.Tensor:
    """The places that the last axis of `indices` names, as places along these axes in one."""
    indices = call.tensor("indices")
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for place, size in enumerate(sizes):
        flat = flat * size + _checked(call, indices[..., place], size)
    return flat


def _checked(call: Call, indices: torch.Tensor, size: int) -> torch.Tensor:
    positions = indices.to(torch.int64)
    if call.opset < _IOS17:
        positions = torch.where(positions < 0, positions + size, positions)
    if bool(((positions < 0) | (positions >= size)).any()):
        raise CannotEvaluate(f"has an index that is out of bounds for an axis of {size}")
    return positions


def _combined(
    data: torch.Tensor, axis: int, indices: torch.Tensor, updates: torch.Tensor, mode: str
) -> torch.Tensor:
    if mode == "update":
        return data.scatter(axis, indices, updates)
    if mode == "sub":
        return data.scatter_reduce(axis, indices, -updates, "sum")
    if mode == "div":
        return data / torch.ones_like(data).scatter_reduce(axis, indices, updates, "prod")
    if mode not in _REDUCE:
        raise CannotEvaluate(f"has the unknown mode {mode!r}")
    return data.scatter_reduce(axis, indices, updates, _REDUCE[mode])
