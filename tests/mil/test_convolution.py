"""conv and conv_transpose against torch, and against sums written out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate
from tests.mil.programs import Case, array, assert_agree, mb, normal, read

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
Pads = tuple[tuple[int, int], ...]


def _conv(label: str, shape: tuple[int, ...], pads: Pads, groups: int = 1, **settings: Any) -> Case:
    """A case whose paddings (before, after) are known."""
    rank = len(shape) - 2
    weight, bias = array(*shape), array(shape[0], seed=2)

    def expect(x: torch.Tensor) -> torch.Tensor:
        flat = [number for pair in reversed(pads) for number in pair]
        return _CONV[rank](
            F.pad(x, flat),
            torch.from_numpy(weight).double(),
            torch.from_numpy(bias).double(),
            settings.get("strides", 1),
            0,
            settings.get("dilations", 1),
            groups,
        )

    return Case(label, lambda x: mb.conv(x=x, weight=weight, bias=bias, groups=groups, **settings), expect)


def test_conv_in_two_dimensions() -> None:
    even = ((0, 0), (0, 0))
    assert_agree(
        [
            _conv("plain", (6, 4, 3, 2), even, pad_type="valid"),
            _conv("no pad_type", (6, 4, 3, 2), even),
            _conv("groups", (8, 2, 3, 3), even, 2, pad_type="valid", strides=[2, 1]),
            _conv("depthwise", (4, 1, 5, 5), ((2, 2), (2, 2)), 4, pad_type="custom", pad=[2, 2, 2, 2]),
            _conv("uneven pad", (3, 4, 3, 3), ((1, 2), (0, 3)), pad_type="custom", pad=[1, 2, 0, 3]),
            _conv(
                "dilated",
                (3, 4, 3, 2),
                ((2, 1), (0, 0)),
                pad_type="custom",
                pad=[2, 1, 0, 0],
                dilations=[2, 3],
                strides=[3, 2],
            ),
        ],
        {"x": normal(2, 4, 11, 12)},
    )


def test_conv_with_same_padding() -> None:
    """11 and 12 long: of stride 2 there are 6 outputs each, for a kernel of 3 from 13 elements."""
    assert_agree(
        [
            _conv("odd", (3, 4, 3, 3), ((1, 1), (1, 1)), pad_type="same"),
            _conv("even kernel", (3, 4, 2, 4), ((0, 1), (1, 2)), pad_type="same"),
            _conv("strided", (3, 4, 3, 3), ((1, 1), (0, 1)), pad_type="same", strides=[2, 2]),
            _conv("lower", (3, 4, 2, 4), ((1, 0), (2, 1)), pad_type="same_lower"),
            _conv("lower, strided", (3, 4, 3, 3), ((1, 1), (1, 0)), pad_type="same_lower", strides=[2, 2]),
            _conv("dilated", (3, 4, 3, 2), ((2, 2), (1, 2)), pad_type="same", dilations=[2, 3]),
            _conv("long steps", (3, 4, 2, 2), ((0, 0), (0, 0)), pad_type="same", strides=[4, 4]),
        ],
        {"x": normal(1, 4, 11, 12)},
    )


def test_conv_in_one_and_three_dimensions() -> None:
    assert_agree(
        [
            _conv("1d", (6, 2, 4), ((3, 1),), 2, pad_type="custom", pad=[3, 1], strides=[2]),
            _conv("1d same", (6, 4, 4), ((1, 2),), pad_type="same"),
        ],
        {"x": normal(2, 4, 13)},
    )
    assert_agree(
        [
            _conv("3d", (5, 3, 2, 3, 3), ((1, 0), (1, 1), (0, 2)), pad_type="custom", pad=[1, 0, 1, 1, 0, 2]),
            _conv("3d strided", (6, 1, 2, 2, 2), ((0, 0),) * 3, 3, pad_type="valid", strides=[1, 2, 3]),
        ],
        {"x": normal(1, 3, 4, 5, 6)},
    )


def test_conv_with_a_computed_weight() -> None:
    case = Case("weight", lambda x, w: mb.conv(x=x, weight=w), lambda x, w: F.conv2d(x, w))
    assert_agree([case], {"x": normal(1, 3, 6, 6), "w": normal(4, 3, 3, 3, seed=5)})


def _sum(
    x: torch.Tensor, w: np.ndarray[Any, Any], strides: list[int], dilations: list[int], groups: int
) -> Any:
    """The full transposed convolution, written out."""
    w = w.astype(np.float64)
    n, c_in = x.shape[:2]
    out = w.shape[1] * groups
    sizes = [
        (length - 1) * stride + (extent - 1) * dilation + 1
        for length, stride, extent, dilation in zip(x.shape[2:], strides, w.shape[2:], dilations, strict=True)
    ]
    y = np.zeros((n, out, *sizes))
    for place in itertools.product(*map(range, x.shape[2:])):
        for tap in itertools.product(*map(range, w.shape[2:])):
            at = tuple(i * s + t * d for i, s, t, d in zip(place, strides, tap, dilations, strict=True))
            for channel in range(c_in):
                group = channel // (c_in // groups)
                first = group * w.shape[1]
                for o in range(w.shape[1]):
                    taken: tuple[Any, ...] = (slice(None), channel, *place)
                    y[:, first + o, *at] += x.numpy()[taken] * w[channel, o, *tap]
    return torch.from_numpy(y)


def _transposed(label: str, shape: tuple[int, ...], cut: Pads, groups: int = 1, **settings: Any) -> Case:
    """A case of which it is known what is cut off the full result, or with negative numbers added."""
    rank = len(shape) - 2
    weight, bias = array(*shape), array(shape[1] * groups, seed=2)

    def expect(x: torch.Tensor) -> torch.Tensor:
        strides, dilations = settings.get("strides", [1] * rank), settings.get("dilations", [1] * rank)
        flat = [-number for pair in reversed(cut) for number in pair]
        full = F.pad(_sum(x, weight, strides, dilations, groups), flat)
        return full + torch.from_numpy(bias).double().reshape(-1, *[1] * rank)

    return Case(
        label,
        lambda x: mb.conv_transpose(x=x, weight=weight, bias=bias, groups=groups, **settings),
        expect,
    )


def test_conv_transpose_against_the_sum() -> None:
    none = ((0, 0), (0, 0))
    assert_agree(
        [
            _transposed("plain", (4, 3, 3, 2), none, pad_type="valid"),
            _transposed("groups", (4, 3, 2, 2), none, 2, strides=[2, 3]),
            _transposed("cut", (4, 3, 3, 3), ((1, 0), (0, 2)), pad_type="custom", pad=[1, 0, 0, 2]),
            _transposed("dilated", (4, 2, 2, 3), none, strides=[2, 1], dilations=[3, 2]),
            # 2·4 = 8 and 2·5 = 10 long, of 9 and 11: one is cut off, behind
            _transposed("same", (4, 2, 3, 3), ((0, 1), (0, 1)), pad_type="same", strides=[2, 2]),
            _transposed("same, wide", (4, 2, 4, 5), ((1, 1), (1, 2)), pad_type="same", strides=[2, 2]),
            _transposed(
                "shape given",
                (4, 2, 3, 3),
                ((1, 0), (1, -1)),
                pad_type="custom",
                pad=[1, 1, 1, 1],
                strides=[2, 2],
                output_shape=[1, 2, 8, 11],
            ),
        ],
        {"x": normal(1, 4, 4, 5)},
    )


def test_conv_transpose_against_torch() -> None:
    weight = array(4, 3, 3)
    assert_agree(
        [
            Case(
                "1d",
                lambda x: mb.conv_transpose(
                    x=x, weight=weight, pad_type="custom", pad=[1, 1], strides=[2], groups=2
                ),
                lambda x: F.conv_transpose1d(x, torch.from_numpy(weight).double(), None, 2, 1, 0, 2),
            )
        ],
        {"x": normal(2, 4, 7)},
    )
    solid = array(2, 3, 2, 3, 2)
    assert_agree(
        [
            Case(
                "3d",
                lambda x: mb.conv_transpose(x=x, weight=solid, strides=[1, 2, 2]),
                lambda x: F.conv_transpose3d(x, torch.from_numpy(solid).double(), None, (1, 2, 2)),
            )
        ],
        {"x": normal(1, 2, 3, 4, 3)},
    )


def test_a_padding_that_does_not_fit_is_refused() -> None:
    program = read(
        lambda x: mb.conv(x=x, weight=array(2, 3, 3, 3), pad_type="same"), {"x": normal(1, 3, 5, 5)}
    )
    for operation in program.operations:
        (name,) = operation.inputs["pad_type"]
        for wrong, message in (
            ("mirror", "conv at .* has the unknown pad_type 'mirror'"),
            ("valid", "declares"),
        ):
            assert isinstance(program.constants, dict)
            program.constants[name] = wrong
            with pytest.raises(UnusableInput, match=f"cannot verify: .*{message}"):
                evaluate(program, {"x": normal(1, 3, 5, 5)})
