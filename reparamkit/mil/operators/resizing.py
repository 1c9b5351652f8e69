"""Other sizes of the last axes, by interpolation at a grid of places.

Place of output i of an axis with n elements that is to have m, held within [0, n - 1]:

    STRICT_ALIGN_CORNERS  i·(n - 1) / (m - 1)
    ALIGN_CORNERS         the same; (n - 1) / 2 where m is 1
    DEFAULT               i·n / m
    OFFSET_CORNERS        (i + 1/2)·max(1, n - 1) / m
    UNALIGN_CORNERS       (i + 1/2)·n / m - 1/2

    upsample_bilinear          to floor(scale·n): ALIGN_CORNERS as STRICT with align_corners (the default),
                               else UNALIGN_CORNERS, or DEFAULT without half_pixel_centers
    resize_bilinear            to target_size_height and target_size_width (1), by sampling_mode (DEFAULT)
    upsample_nearest_neighbor  to floor(scale·n): the element at floor(i·n / m)
    resize_nearest_neighbor    to target sizes: the element at floor((i + 1/2)·n / m), whose centre is nearest
    resize                     the last resized_dims axes to the last numbers of `shape`, 0 leaving one as it
                               is; LINEAR by sampling_mode, or NEAREST_NEIGHBOR with DEFAULT, which is
                               resize_nearest_neighbor. What other modes mean for the nearest neighbour is
                               told nowhere, so they are refused

That the two kinds of nearest neighbour differ is not in the reference's text. It follows from coremltools'
own tests: a network of TensorFlow becomes upsample_nearest_neighbor where half_pixel_centers is off and
resize_nearest_neighbor, or resize, where it is on, and is held against TensorFlow at 10 to 25 and 20 to 30;
and a resize of two elements to three gives the first one once and the second one twice.

Source: coremltools/converters/mil/mil/ops/defs/iOS15/image_resizing.py, iOS16 (half_pixel_centers), iOS17
(resize); coremltools/converters/mil/mil/ops/tests/iOS17/test_image_resizing.py and
coremltools/converters/mil/frontend/tensorflow2/test/test_v2_ops.py (TestResizeNearestNeighbor).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator

_LONGEST = 1_000_000
"""The grid of an axis is computed in fractions, element by element."""


@operator("upsample_bilinear", "x scale_factor_height scale_factor_width align_corners half_pixel_centers")
def upsample_bilinear(call: Call) -> torch.Tensor:
    align = call.flag("align_corners", True)
    half = call.flag("half_pixel_centers", not align)
    if align and half:
        raise CannotEvaluate("has both align_corners and half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half else "DEFAULT"
    return _linear(call.tensor("x"), _scaled(call), mode)


@operator("resize_bilinear", "x target_size_height target_size_width sampling_mode")
def resize_bilinear(call: Call) -> torch.Tensor:
    sizes = [call.integer("target_size_height", 1), call.integer("target_size_width", 1)]
    return _linear(call.tensor("x"), sizes, call.text("sampling_mode", "DEFAULT"))


@operator("upsample_nearest_neighbor", "x scale_factor_height scale_factor_width")
def upsample_nearest_neighbor(call: Call) -> torch.Tensor:
    return _taken(call.tensor("x"), _scaled(call), lambda i, n, m: i * n // m)


@operator("resize_nearest_neighbor", "x target_size_height target_size_width")
def resize_nearest_neighbor(call: Call) -> torch.Tensor:
    sizes = [call.integer("target_size_height"), call.integer("target_size_width")]
    return _taken(call.tensor("x"), sizes, _nearest)


@operator("resize", "x shape resized_dims interpolation_mode sampling_mode")
def resize(call: Call) -> torch.Tensor:
    x, count = call.tensor("x"), call.integer("resized_dims")
    shape = call.integers("shape")
    if not 0 < count <= min(len(shape), x.dim()):
        raise CannotEvaluate(f"has {count} resized_dims")
    sizes = [size or own for size, own in zip(shape[-count:], x.shape[-count:], strict=True)]
    mode = call.text("sampling_mode", "DEFAULT")
    how = call.text("interpolation_mode", "LINEAR")
    if how == "LINEAR":
        return _linear(x, sizes, mode)
    if how != "NEAREST_NEIGHBOR" or mode != "DEFAULT":
        raise CannotEvaluate(f"has the interpolation_mode {how!r} with the sampling_mode {mode!r}")
    return _taken(x, sizes, _nearest)


def _scaled(call: Call) -> list[int]:
    x = call.tensor("x")
    scales = [call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)]
    return [math.floor(scale * size) for scale, size in zip(scales, x.shape[-2:], strict=True)]


def _check_sizes(sizes: list[int]) -> None:
    if any(not 0 <= size <= _LONGEST for size in sizes):
        raise CannotEvaluate(f"resizes to {'x'.join(map(str, sizes))}")


def _linear(x: torch.Tensor, sizes: list[int], mode: str) -> torch.Tensor:
    _check_sizes(sizes)
    for axis, size in enumerate(sizes, start=-len(sizes)):
        places = [_place(i, x.shape[axis], size, mode) for i in range(size)]
        if places == list(range(x.shape[axis])):
            continue
        first = [math.floor(place) for place in places]
        after = [min(place + 1, x.shape[axis] - 1) for place in first]
        share = torch.tensor(
            [float(place - below) for place, below in zip(places, first, strict=True)], dtype=x.dtype
        ).reshape(-1, *[1] * (-axis - 1))
        low = x.index_select(axis, torch.tensor(first))
        x = low + (x.index_select(axis, torch.tensor(after)) - low) * share
    return x


def _taken(x: torch.Tensor, sizes: list[int], place: Callable[[int, int, int], int]) -> torch.Tensor:
    _check_sizes(sizes)
    for axis, size in enumerate(sizes, start=-len(sizes)):
        x = x.index_select(axis, torch.tensor([place(i, x.shape[axis], size) for i in range(size)]))
    return x


def _nearest(i: int, n: int, m: int) -> int:
    place = (2 * i + 1) * n // (2 * m)
    # The border between two elements: which one it is depends on how the quotient n / m was rounded.
    if (2 * i + 1) * n == 2 * m * place and int(
        (np.float32(i) + np.float32(0.5)) * np.float32(n / m)
    ) != place:
        raise CannotEvaluate(
            f"resizes {n} to {m} by the nearest neighbour, where element {i} lies between two as near"
        )
    return place


def _place(i: int, n: int, m: int, mode: str) -> Fraction:
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        single = Fraction(n - 1, 2) if mode == "ALIGN_CORNERS" else Fraction(0)
        place = Fraction(i * (n - 1), m - 1) if m > 1 else single
    elif mode == "DEFAULT":
        place = Fraction(i * n, m)
    elif mode == "OFFSET_CORNERS":
        place = Fraction((2 * i + 1) * max(1, n - 1), 2 * m)
    elif mode == "UNALIGN_CORNERS":
        place = Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2)
    else:
        raise CannotEvaluate(f"has the unknown sampling_mode {mode!r}")
    return min(Fraction(n - 1), max(Fraction(0), place))
