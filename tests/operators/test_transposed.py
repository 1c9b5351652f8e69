"""The reader of transposed convolutions against the operator itself, on random attributes, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reparamkit.algebra import AffineMap, Geometry, Transposed
from reparamkit.operators import Affine
from tests.nets import noise, randomised
from tests.operators.reading import evaluated, read

EXACT = 1e-12
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
_LAYERS: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_few = settings(deadline=None, derandomize=True, max_examples=15, database=None)


def _assert_same(
    function: Callable[..., Any], x: Tensor, operator: str, **parts: nn.Module | Tensor
) -> AffineMap:
    node = read(function, x, operator, **parts)
    assert isinstance(node.meaning, Affine), node.reason
    holder = nn.Module()
    for name, part in parts.items():
        setattr(holder, name, part)
    value = noise(*x.shape, seed=40)
    with torch.no_grad():
        expected = function(holder, value)
    found = evaluated(node, value)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= EXACT * max(1.0, expected.abs().max().item())
    numbers = node.meaning.terms[0].load()
    assert isinstance(numbers, AffineMap)
    return numbers


def _layer(dims: int, data: st.DataObject, *, stride: tuple[int, ...]) -> nn.Module:
    window = tuple(data.draw(st.integers(1, 4)) for _ in range(dims))
    dilation = tuple(data.draw(st.integers(1, 3)) for _ in range(dims))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(dims))
    more = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    groups, bias = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.booleans())
    outputs = data.draw(st.sampled_from([4, 8]))
    layer: nn.Module = _LAYERS[dims](4, outputs, window, stride, padding, more, groups, bias, dilation)
    return randomised(layer.double())


@DIMS
@given(data=st.data())
@_few
def test_transposed_convolutions(dims: int, data: st.DataObject) -> None:
    stride = (data.draw(st.integers(2, 3)), *(data.draw(st.integers(1, 3)) for _ in range(dims - 1)))
    layer = _layer(dims, data, stride=stride)
    x = noise(2, 4, *[5 + axis for axis in range(dims)])
    numbers = _assert_same(lambda s, x: s.layer(x), x, f"conv_transpose{dims}d", layer=layer)
    assert isinstance(numbers.structure, Transposed)


@DIMS
@given(data=st.data())
@_few
def test_with_stride_1_it_is_a_convolution(dims: int, data: st.DataObject) -> None:
    """Whatever the padding: more than the window reaches over is a crop."""
    layer = _layer(dims, data, stride=(1,) * dims)
    x = noise(2, 4, *[9 + axis for axis in range(dims)])
    numbers = _assert_same(lambda s, x: s.layer(x), x, f"conv_transpose{dims}d", layer=layer)
    assert isinstance(numbers.structure, Geometry)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_general_operator_transposed(stride: int) -> None:
    def function(s: Any, x: Tensor) -> Tensor:
        return torch.convolution(x, s.w, None, [stride], [1], [1], True, [0], 2)

    _assert_same(function, noise(2, 4, 5, 6), "convolution", w=noise(4, 3, 3, 2))


def test_a_size_that_the_caller_gives_is_padding_behind_the_output() -> None:
    layer = randomised(nn.ConvTranspose2d(4, 6, 3, 2, 1).double())
    x = noise(2, 4, 5, 6)
    numbers = _assert_same(lambda s, x: s.layer(x, output_size=[10, 11]), x, "conv_transpose2d", layer=layer)
    assert isinstance(numbers.structure, Transposed)
    assert numbers.structure.output_padding == (1, 0)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda s, x: nn.functional.conv_transpose2d(x, x), "its weight depends on the network's input"),
        (
            lambda s, x: nn.functional.conv_transpose2d(x, s.w, x[0, :, 0, 0]),
            "its bias depends on the network's input",
        ),
    ],
)
def test_what_is_declined_and_why(function: Callable[..., Any], reason: str) -> None:
    x = noise(3, 3, 4, 4)
    assert read(function, x, "conv_transpose2d", w=noise(3, 3, 2, 2)).reason == reason
