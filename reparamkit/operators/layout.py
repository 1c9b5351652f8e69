"""Operators that move values about, or average them, and treat every channel alike.

Such an operator P lets a map per channel pass:

    P(a·x + b) = a'·P(x) + b'        a', b' the same numbers, along the axis where the channels now lie

Permutations and reshapes do if the channel axis stays whole; means and average pooling over other axes, and
interpolation, do because they also keep constants.
"""

from __future__ import annotations

import operator
from functools import reduce

from reparamkit.operators.base import Call, Meaning, NotAffine, Size, Through, Value, identity, reader


@reader(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.dims",  # the other ones do not say which axes go
    "aten.unsqueeze.default",
    "aten.expand.default",
)
def reshape(call: Call) -> Meaning:
    """A change of shape that keeps the order of the elements."""
    value, result = call.value("self"), call.result
    if value.sizes == result.sizes:
        return identity(value)
    if reduce(operator.mul, value.shape, 1) != reduce(operator.mul, result.shape, 1):
        raise NotAffine("it repeats the value", notable=False)
    return Through(value, tuple(_kept_whole(axis, value.sizes, result.sizes) for axis in range(value.ndim)))


@reader("aten.permute.default")
def permute(call: Call) -> Meaning:
    """The axes in another order."""
    value = call.value("self")
    order = [value.axis(d) for d in call.get("dims")]
    return Through(value, tuple(order.index(axis) for axis in range(value.ndim)))


@reader("aten.transpose.int")
def transpose(call: Call) -> Meaning:
    """Two axes exchanged."""
    value = call.value("self")
    a, b = value.axis(call.get("dim0")), value.axis(call.get("dim1"))
    swapped = {a: b, b: a}
    return Through(value, tuple(swapped.get(axis, axis) for axis in range(value.ndim)))


@reader("aten.t.default", "aten.numpy_T.default")
def t(call: Call) -> Meaning:
    """All axes reversed."""
    value = call.value("self")
    return Through(value, tuple(reversed(range(value.ndim))))


@reader("aten.mean.dim")
def mean(call: Call) -> Meaning:
    """The mean over some axes."""
    value = call.value("self")
    if call.get("dim") is None or not call.get("dim"):
        raise NotAffine("it averages over the channels too", notable=False)
    gone = {value.axis(d) for d in call.get("dim")}
    keep = bool(call.get("keepdim", False))
    return Through(value, tuple(_after_removal(axis, gone, keep) for axis in range(value.ndim)))


@reader(
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten.adaptive_avg_pool3d.default",
    "aten._adaptive_avg_pool2d.default",
)
def adaptive_avg_pool(call: Call) -> Meaning:
    """The mean over windows that divide the last axes."""
    return spatial(call.value("self"), int(call.target[call.target.index("pool") + 4]))


@reader(
    "aten.upsample_nearest1d.vec",
    "aten.upsample_nearest2d.vec",
    "aten.upsample_nearest3d.vec",
    "aten.upsample_linear1d.vec",
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_trilinear3d.vec",
    "aten.upsample_bicubic2d.vec",
)
def interpolate(call: Call) -> Meaning:
    """Weighted means whose weights add up to one."""
    value = call.value("input")
    return spatial(value, value.ndim - 2)


def spatial(value: Value, dims: int) -> Through:
    """An operator that works along the last `dims` axes only."""
    whole = value.ndim - dims
    return Through(value, tuple(axis if axis < whole else None for axis in range(value.ndim)))


def _kept_whole(axis: int, before: tuple[Size, ...], after: tuple[Size, ...]) -> int | None:
    """Where an axis lies after a reshape; None where it was split or joined with another."""
    if before[axis] == 1:
        return None
    for new, size in enumerate(after):
        if size == before[axis] and (after[:new] == before[:axis] or after[new + 1 :] == before[axis + 1 :]):
            return new
    return None


def _after_removal(axis: int, gone: set[int], keep: bool) -> int | None:
    if axis in gone:
        return None
    return axis if keep else axis - sum(d < axis for d in gone)
