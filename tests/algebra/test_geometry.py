"""Shapes of maps: what they promise, and every refusal in its own words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reparamkit.algebra import Geometry, Inexact, Scalar, geometry, windows
from reparamkit.algebra.transposed import Transposed
from tests.algebra.maps import apply, maps, runs, sizes
from tests.nets import noise

_quietly = settings(deadline=None, derandomize=True, max_examples=150, database=None)
_dims = st.integers(0, 3)


def conv(
    window: int = 3, stride: int = 1, dilation: int = 1, near: int = 0, far: int | None = None, **options: int
) -> Geometry:
    inputs, outputs = options.get("inputs", 4), options.get("outputs", 4)
    return geometry.convolution(
        inputs,
        outputs,
        options.get("groups", 1),
        (window,),
        (stride,),
        (dilation,),
        (near,),
        (near if far is None else far,),
        has_bias=bool(options.get("bias", 0)),
    )


def _length(g: Geometry | Transposed, n: int) -> int:
    assert isinstance(g, Geometry)
    return (n + g.extent[0] - 1) // g.stride[0] + 1


@given(data=st.data(), dims=_dims)
@_quietly
def test_the_output_length_of_the_formula_is_that_of_torch(data: st.DataObject, dims: int) -> None:
    m = data.draw(maps(dims))
    g = m.structure
    for size in sizes(dims):
        if runs(m, size):
            lengths = [(n + e - 1) // s + 1 for n, e, s in zip(size, g.extent, g.stride, strict=True)]
            assert list(apply(m, noise(1, g.inputs, *size)).shape[2:]) == lengths


@given(data=st.data(), dims=_dims)
@_quietly
def test_the_kernel_has_as_many_elements_as_the_shape_says(data: st.DataObject, dims: int) -> None:
    m = data.draw(maps(dims))
    assert m.kernel.numel() == m.structure.weights
    assert m.structure.dims == dims


@given(
    near=st.integers(-2, 4),
    far=st.integers(-2, 4),
    window=st.integers(1, 5),
    dilation=st.integers(1, 3),
    stride=st.integers(1, 4),
)
@_quietly
def test_padding_comes_back_as_it_was_given(
    near: int, far: int, window: int, dilation: int, stride: int
) -> None:
    g = conv(window, stride, dilation, near, far)
    assert (g.near, g.far) == ((near,), (far,))
    assert g.span == ((window - 1) * dilation + 1,)


@given(
    extent=st.integers(-6, 4), stride=st.integers(1, 5), wanted=st.integers(1, 6), window=st.integers(1, 3)
)
@_quietly
def test_length_in_is_the_shortest_input_of_that_output_and_the_slack_the_longest(
    extent: int, stride: int, wanted: int, window: int
) -> None:
    g = replace(conv(window, stride), extent=(extent,))
    shortest, longest = g.length_in(0, wanted), g.length_in(0, wanted, stride - 1)
    assert _length(g, shortest) == _length(g, longest) == wanted
    assert _length(g, shortest - 1) == wanted - 1
    assert _length(g, longest + 1) == wanted + 1


@given(data=st.data(), dims=st.integers(1, 3))
@_quietly
def test_the_taps_of_a_part_lie_where_they_did(data: st.DataObject, dims: int) -> None:
    a = data.draw(maps(dims)).structure
    b = data.draw(maps(dims, a.inputs, a.outputs, stride=a.stride, extent=a.extent)).structure
    whole = geometry.add(a, b)
    assert isinstance(whole, Geometry)
    for part in (a, b):
        first, step = windows.offsets(part, whole)
        for axis in range(dims):
            for tap in range(part.window[axis]):
                index = first[axis] + step[axis] * tap
                assert 0 <= index < whole.window[axis]
                there = whole.lo[axis] + whole.dilation[axis] * index
                assert there == part.lo[axis] + part.dilation[axis] * tap


@given(data=st.data(), dims=st.integers(1, 3))
@_quietly
def test_the_window_of_a_sum_is_no_wider_than_its_parts(data: st.DataObject, dims: int) -> None:
    a = data.draw(maps(dims)).structure
    b = data.draw(maps(dims, a.inputs, a.outputs, stride=a.stride, extent=a.extent)).structure
    whole = geometry.add(a, b)
    assert isinstance(whole, Geometry)
    for axis in range(dims):
        lows = [g.lo[axis] for g in (a, b)]
        highs = [g.lo[axis] + g.span[axis] for g in (a, b)]
        assert whole.lo[axis] == min(lows)
        assert whole.lo[axis] + whole.span[axis] == max(highs)
    assert whole.groups == math.gcd(a.groups, b.groups)
    assert geometry.add(b, a) == whole


@pytest.mark.parametrize(
    ("g", "pointwise", "channelwise"),
    [
        (conv(1), True, False),
        (conv(1, groups=4), True, True),
        (conv(3, near=1, groups=4), False, True),
        (conv(1, near=1, groups=4), False, True),
        (conv(1, stride=2), False, False),
        (conv(1, near=-1, far=1), False, False),
        (conv(1, groups=4, outputs=8), True, False),
        (conv(1, groups=2), True, False),
    ],
)
def test_what_a_shape_knows_of_itself(g: Geometry, pointwise: bool, channelwise: bool) -> None:
    assert (g.pointwise, g.channelwise) == (pointwise, channelwise)


def test_the_dilation_of_one_tap_says_nothing() -> None:
    assert conv(1, dilation=3) == conv(1, dilation=1)


@pytest.mark.parametrize(
    ("after", "before", "reason"),
    [
        (
            conv(near=1),
            conv(1, bias=1),
            "a per-channel shift before zero padding: the padded border stays zero",
        ),
        (
            conv(near=1),
            Scalar(has_bias=True),
            "a constant shift before zero padding: the padded border stays zero",
        ),
        (conv(near=0, far=1), conv(1, bias=1), "a per-channel shift before zero padding"),
        (conv(near=1), conv(3), "zero padding between two windows: the second pads the output of the first"),
        (conv(near=1), conv(3, near=1), "zero padding between two windows"),
        (conv(near=1), conv(1, near=-1), "zero padding after a crop: the cropped values would come back"),
        (conv(near=0, far=1), conv(1, far=-1), "zero padding after a crop"),
        (conv(inputs=4), conv(outputs=6, inputs=6), "channel counts differ (6 and 4)"),
        (
            conv(),
            geometry.pointwise(4, 4, 1, 2, has_bias=False),
            "the two work along different axes of the tensor",
        ),
    ],
)
def test_a_composition_is_refused_in_words(after: Geometry, before: Geometry | Scalar, reason: str) -> None:
    with pytest.raises(Inexact) as refused:
        geometry.compose(after, before)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("after", "before"),
    [
        (conv(near=1), conv(1)),
        (conv(near=1), Scalar()),
        (conv(), conv(1, near=1, bias=1)),
        (conv(near=2), conv(1, near=1)),
        (conv(near=1), conv(1, stride=2)),
        (conv(1), conv(3, near=1, bias=1)),
        (conv(near=-1), conv(3, near=1, bias=1)),
        (conv(near=1), conv(2, stride=2, near=2)),
    ],
    ids=["1x1", "scale", "padded 1x1", "padded twice", "strided 1x1", "1x1 after", "crop", "zero outside"],
)
def test_padding_that_meets_zeros_is_not_refused(after: Geometry, before: Geometry | Scalar) -> None:
    """The first map, by its own formula, is zero where the second pads."""
    assert isinstance(geometry.compose(after, before), Geometry)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (conv(stride=1), conv(stride=2), "the branches have different strides ([1] and [2])"),
        (conv(near=1), conv(near=0), "the branches give different output sizes for some input sizes"),
        (conv(outputs=8), conv(outputs=4), "the sum broadcasts over channels"),
        (conv(inputs=4), conv(inputs=1), "the sum broadcasts over channels"),
        (conv(outputs=8), Scalar(), "the sum broadcasts over channels"),
        (Scalar(), conv(outputs=8), "the sum broadcasts over channels"),
        (conv(), geometry.pointwise(4, 4, 1, 2, has_bias=False), "different axes of the tensor"),
        (conv(stride=2, near=1), Scalar(), "the branches have different strides ([1] and [2])"),
    ],
)
def test_a_sum_is_refused_in_words(a: Geometry | Scalar, b: Geometry | Scalar, reason: str) -> None:
    with pytest.raises(Inexact) as refused:
        geometry.add(a, b)
    assert reason in str(refused.value)


@given(data=st.data(), stride=st.integers(1, 3), other=st.integers(1, 3))
@_quietly
def test_a_sum_refused_for_its_sizes_has_no_common_size(data: st.DataObject, stride: int, other: int) -> None:
    """Whenever stride or extent differ, some input size gives the two branches different lengths."""
    a = data.draw(maps(1, inputs=1, outputs=1, stride=(stride,))).structure
    b = data.draw(maps(1, inputs=1, outputs=1, stride=(other,))).structure
    try:
        geometry.add(a, b)
    except Inexact:
        assert any(_length(a, n) != _length(b, n) for n in range(1, 40))
    else:
        assert all(_length(a, n) == _length(b, n) for n in range(1, 40))


def test_a_concatenation_is_refused_in_words() -> None:
    with pytest.raises(Inexact, match="different axes of the tensor"):
        geometry.stack([conv(inputs=4), conv(inputs=2)])
    with pytest.raises(Inexact, match="different strides"):
        geometry.stack([conv(), conv(stride=2)])
    with pytest.raises(Inexact, match="different output sizes"):
        geometry.stack([conv(), conv(near=1)])


def test_moving_values_is_not_multiplying_them() -> None:
    """`unit` is a promise about numbers: it must be lost as soon as anything but a move joins."""
    move = replace(conv(1, near=1, groups=4), unit=True)
    composed = geometry.compose(move, move)
    assert isinstance(composed, Geometry)
    assert composed.unit
    for other in (Scalar(), conv(1, groups=4)):
        kept = [geometry.compose(move, other), geometry.compose(other, move)]
        assert not any(k.unit for k in kept if isinstance(k, Geometry))
    added = geometry.add(move, move)
    assert isinstance(added, Geometry)
    assert not added.unit


def test_the_identity_is_a_promise_too() -> None:
    identity, number = Scalar(identity=True), Scalar()
    assert geometry.compose(identity, identity) == identity
    assert geometry.compose(identity, number) == number
    assert geometry.add(identity, identity) == number
