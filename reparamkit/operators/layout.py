"""Operators that move values about, or average them, and treat every channel alike.

Such an operator P lets a map per channel pass:

    P(a·x + b) = a'·P(x) + b'        a', b' the same numbers, along the digits where the channels now lie

Where that is, `reparamkit.algebra.layout` says. Means, average pooling and interpolation over other axes do
because they keep constants.
"""

from __future__ import annotations

import math

from reparamkit.algebra.layout import Layout, Size
from reparamkit.operators.base import Call, Meaning, Move, NotAffine, Value, identity, reader


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
    if math.prod(value.shape) != math.prod(result.shape):
        raise NotAffine("it repeats the value", notable=False)
    return Move(value, lambda layout: layout.reshaped(result.sizes))


@reader("aten.permute.default")
def permute(call: Call) -> Meaning:
    """The axes in another order."""
    value = call.value("self")
    order = [value.axis(d) for d in call.get("dims")]
    return Move(value, lambda layout: layout.permuted(order))


@reader("aten.transpose.int")
def transpose(call: Call) -> Meaning:
    """Two axes exchanged."""
    value = call.value("self")
    a, b = value.axis(call.get("dim0")), value.axis(call.get("dim1"))
    swapped = {a: b, b: a}
    order = [swapped.get(axis, axis) for axis in range(value.ndim)]
    return Move(value, lambda layout: layout.permuted(order))


@reader("aten.t.default", "aten.numpy_T.default")
def t(call: Call) -> Meaning:
    """All axes reversed."""
    value = call.value("self")
    return Move(value, lambda layout: layout.permuted(range(value.ndim)[::-1]))


@reader("aten.mean.dim")
def mean(call: Call) -> Meaning:
    """The mean over some axes."""
    value = call.value("self")
    if call.get("dim") is None or not call.get("dim"):
        raise NotAffine("it averages over the channels too", notable=False)
    gone = {value.axis(d) for d in call.get("dim")}
    keep = bool(call.get("keepdim", False))
    return Move(value, lambda layout: layout.without(sorted(gone), keep=keep))


@reader(
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten.adaptive_avg_pool3d.default",
    "aten._adaptive_avg_pool2d.default",
)
def adaptive_avg_pool(call: Call) -> Meaning:
    """The mean over windows that divide the last axes."""
    return spatial(call.value("self"), int(call.target[call.target.index("pool") + 4]), call.result.sizes)


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
    return spatial(value, value.ndim - 2, call.result.sizes)


def spatial(value: Value, dims: int, sizes: tuple[Size, ...]) -> Move:
    """An operator that averages along the last `dims` axes only, to a result of these sizes."""
    last = range(value.ndim - dims, value.ndim)

    def carry(layout: Layout) -> Layout | None:
        return layout.resized(sizes) if layout.is_closed(last) else None

    return Move(value, carry)
