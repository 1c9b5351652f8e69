"""Pooling against torch, and against windows written out where torch has none such."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.mil.programs import Case, assert_agree, mb, normal

Pads = tuple[tuple[int, int], ...]


def _windows(
    x: torch.Tensor,
    kernel: list[int],
    strides: list[int],
    pads: Pads,
    of_window: Callable[[np.ndarray[Any, Any], int], Any],
) -> Any:
    """Each window of x without what lies outside, given with the number of padded elements in it."""
    values = x.numpy()
    sizes = [
        (size + before + after - extent) // stride + 1
        for size, extent, stride, (before, after) in zip(values.shape[2:], kernel, strides, pads, strict=True)
    ]
    y = np.zeros((*values.shape[:2], *sizes))
    for place in itertools.product(*map(range, sizes)):
        bounds = []
        total = 1
        for i, size, extent, stride, (before, _) in zip(
            place, values.shape[2:], kernel, strides, pads, strict=True
        ):
            start = i * stride - before
            total *= extent
            bounds.append(slice(max(start, 0), max(min(start + extent, size), 0)))
        inside = values[(slice(None), slice(None), *bounds)].reshape(*values.shape[:2], -1)
        at: tuple[Any, ...] = (slice(None), slice(None), *place)
        y[at] = of_window(inside, total)
    return y


def _mean(inside: Any, total: int) -> Any:
    return inside.sum(-1) / total


def _mean_of_inside(inside: Any, total: int) -> Any:
    return inside.mean(-1)


def _largest(inside: Any, total: int) -> Any:
    return inside.max(-1)


def _length(inside: Any, total: int) -> Any:
    return np.sqrt((inside**2).sum(-1))


def _case(
    label: str,
    kind: str,
    kernel: list[int],
    strides: list[int],
    pads: Pads,
    of_window: Callable[[np.ndarray[Any, Any], int], Any],
    **settings: Any,
) -> Case:
    return Case(
        label,
        lambda x: getattr(mb, kind)(x=x, kernel_sizes=kernel, strides=strides, **settings),
        lambda x: _windows(x, kernel, strides, pads, of_window),
    )


def test_pooling_of_windows_written_out() -> None:
    uneven: Pads = ((1, 0), (2, 1))
    flat = [1, 0, 2, 1]
    none: Pads = ((0, 0), (0, 0))
    custom = {"pad_type": "custom", "pad": flat}
    assert_agree(
        [
            _case("mean", "avg_pool", [3, 2], [2, 1], none, _mean, pad_type="valid"),
            _case("mean, padded", "avg_pool", [3, 4], [2, 3], uneven, _mean, **custom),
            _case(
                "mean, inside",
                "avg_pool",
                [3, 4],
                [2, 3],
                uneven,
                _mean_of_inside,
                exclude_padding_from_average=True,
                **custom,
            ),
            # 7 and 9 long, steps of 2: 4 and 5 windows, of which 2 elements each lie outside in all
            _case("mean, same", "avg_pool", [3, 3], [2, 2], ((1, 1), (1, 1)), _mean, pad_type="same"),
            _case("mean, lower", "avg_pool", [2, 2], [2, 2], ((1, 0), (1, 0)), _mean, pad_type="same_lower"),
            _case("largest, same", "max_pool", [2, 2], [2, 2], ((0, 1), (0, 1)), _largest, pad_type="same"),
            _case("largest", "max_pool", [3, 4], [2, 3], uneven, _largest, **custom),
            _case("length", "l2_pool", [3, 4], [2, 3], uneven, _length, **custom),
        ],
        {"x": normal(2, 3, 7, 9) - 2},
    )


def test_ceil_mode_against_torch() -> None:
    """What torch calls ceil_mode, with and without padding that counts."""

    def pad(p: int) -> dict[str, Any]:
        return {"pad_type": "custom", "pad": [p] * 4, "ceil_mode": True}

    assert_agree(
        [
            Case(
                "mean",
                lambda x: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], **pad(1)),
                lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            ),
            Case(
                "mean, inside",
                lambda x: mb.avg_pool(
                    x=x, kernel_sizes=[3, 3], strides=[2, 2], exclude_padding_from_average=True, **pad(1)
                ),
                lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            ),
            Case(
                "mean, no padding",
                lambda x: mb.avg_pool(x=x, kernel_sizes=[2, 4], strides=[2, 3], **pad(0)),
                lambda x: F.avg_pool2d(x, (2, 4), (2, 3), ceil_mode=True),
            ),
            Case(
                "largest",
                lambda x: mb.max_pool(x=x, kernel_sizes=[3, 2], strides=[2, 2], **pad(1)),
                lambda x: F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
            ),
            Case(
                "largest, the last window would start outside",
                lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[3, 3], **pad(1)),
                lambda x: F.max_pool2d(x, 2, 3, 1, ceil_mode=True),
            ),
        ],
        {"x": normal(1, 2, 8, 10)},
    )


def test_pooling_in_one_and_three_dimensions() -> None:
    assert_agree(
        [
            Case(
                "mean",
                lambda x: mb.avg_pool(x=x, kernel_sizes=[3], strides=[2], pad_type="custom", pad=[1, 1]),
                lambda x: F.avg_pool1d(x, 3, 2, 1),
            ),
            Case(
                "largest",
                lambda x: mb.max_pool(x=x, kernel_sizes=[4], strides=[3], pad_type="valid"),
                lambda x: F.max_pool1d(x, 4, 3),
            ),
        ],
        {"x": normal(2, 3, 11)},
    )
    assert_agree(
        [
            Case(
                "mean",
                lambda x: mb.avg_pool(x=x, kernel_sizes=[2, 3, 2], strides=[1, 2, 2], pad_type="valid"),
                lambda x: F.avg_pool3d(x, (2, 3, 2), (1, 2, 2)),
            ),
            Case(
                "largest",
                lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2, 2], pad_type="valid"),
                lambda x: F.max_pool3d(x, 2, 1),
            ),
        ],
        {"x": normal(1, 2, 4, 5, 6)},
    )
