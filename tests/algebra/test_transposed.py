"""Transposed convolutions: sums and compositions against torch's own, and every refusal in its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reparamkit.algebra import (
    AffineMap,
    Geometry,
    Inexact,
    Numbers,
    Scalar,
    ScalarMap,
    Transposed,
    affine,
    geometry,
)
from reparamkit.algebra import transposed as scattering
from reparamkit.algebra.transposed import exchanged, realisable, transposed
from tests.algebra.maps import apply, error, formula, maps, runs, scatterings, sizes
from tests.nets import noise

EXACT = 1e-11
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
Drawn = st.DataObject
_quietly = settings(deadline=None, derandomize=True, max_examples=60, database=None)
_OPERATORS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def up(
    window: int = 4, stride: int = 2, padding: int = 0, more: int = 0, dilation: int = 1, **options: int
) -> Transposed:
    return transposed(
        options.get("inputs", 4),
        options.get("outputs", 4),
        options.get("groups", 1),
        (window,),
        (stride,),
        (dilation,),
        (padding,),
        (more,),
        has_bias=bool(options.get("bias", 0)),
    )


def conv(window: int = 3, near: int = 0, far: int | None = None, stride: int = 1, bias: int = 0) -> Geometry:
    far = near if far is None else far
    return geometry.convolution(4, 4, 1, (window,), (stride,), (1,), (near,), (far,), has_bias=bool(bias))


def _torch(t: Transposed, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    weight = exchanged(kernel, t.groups)
    return _OPERATORS[t.dims](x, weight, bias, t.stride, t.padding, t.output_padding, t.groups, t.dilation)


def _structure(m: Numbers) -> Transposed:
    assert isinstance(m, AffineMap)
    assert isinstance(m.structure, Transposed)
    return m.structure


@DIMS
@given(data=st.data())
@settings(_quietly, max_examples=25)
def test_a_map_is_the_formula_of_its_definition_and_torch_s_operator(dims: int, data: Drawn) -> None:
    m = data.draw(scatterings(dims))
    for size in sizes(dims, 6 if dims < 3 else 3):
        if runs(m, size):
            x = noise(2, m.structure.inputs, *size)
            assert error(apply(m, x), _torch(_structure(m), m.kernel, m.bias, x)) < EXACT
            if m.kernel.numel() * x.numel() < 5000:
                assert error(formula(m, x), apply(m, x)) < EXACT


def _compare(after: Numbers, before: Numbers, composed: Numbers, inputs: int, dims: int) -> float:
    worst = 0.0
    for size in sizes(dims, 8 if dims < 3 else 5):
        if not runs(before, size):
            continue
        x = noise(2, inputs, *size)
        middle = apply(before, x)
        if middle.numel() and runs(after, tuple(middle.shape[2:])):
            worst = max(worst, error(apply(after, middle), apply(composed, x)))
    return worst


def _pair(data: Drawn, dims: int, **fixed: Any) -> tuple[AffineMap, AffineMap]:
    """Two maps to compose, the second to act first, of which one at least scatters."""
    kind = data.draw(st.sampled_from(["both", "after", "before"]))
    flat: dict[str, Any] = {"stride": (1,) * dims}
    if kind == "before":
        before = data.draw(scatterings(dims, **fixed))
        return data.draw(maps(dims, before.structure.outputs, **flat)), before
    before = data.draw(scatterings(dims, **fixed) if kind == "both" else maps(dims, **flat))
    if "biased" in fixed:
        before = affine.without_bias(before)
    return data.draw(scatterings(dims, before.structure.outputs, **fixed)), before


@DIMS
@given(data=st.data())
@settings(_quietly, max_examples=120)
def test_a_composition_that_is_not_refused_is_exact_at_every_size(dims: int, data: Drawn) -> None:
    after, before = _pair(data, dims)
    try:
        composed = affine.compose(after, before)
    except Inexact:
        return
    assert _structure(composed) == geometry.compose(after.structure, before.structure)
    assert _compare(after, before, composed, before.structure.inputs, dims) < EXACT


@DIMS
@given(data=st.data())
@settings(_quietly, max_examples=120)
def test_a_composition_refused_for_its_border_or_its_shift_would_be_wrong(dims: int, data: Drawn) -> None:
    """Of windows without gaps and borders of one position, so that whatever is cut off is met again."""
    flat = (1,) * dims
    before = data.draw(scatterings(dims, stride=(2,) * dims, dilation=flat))
    near = tuple(min(p, 1) for p in _structure(before).padding)
    ends = tuple(data.draw(st.integers(0, 1)) for _ in range(dims))
    s = replace(before.structure, lo=tuple(-p for p in near))
    s = replace(s, extent=tuple(lo + n - 1 - q for lo, n, q in zip(s.lo, s.span, ends, strict=True)))
    before = replace(before, structure=s)
    after = data.draw(scatterings(dims, s.outputs, dilation=flat))
    try:
        affine.compose(after, before)
    except Inexact:
        pass
    else:
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(geometry, "_require_inside", lambda *_: None)
        patched.setattr(scattering, "_require_nothing_lost", lambda *_: None)
        naive = affine.compose(after, before)
    assert _compare(after, before, naive, s.inputs, dims) > 1e-6


@DIMS
@given(data=st.data(), window=st.integers(1, 3))
@_quietly
def test_a_pointwise_map_before_and_an_unpadded_one_behind_always_compose(
    dims: int, data: Drawn, window: int
) -> None:
    """A 1x1 map before it, and a window of stride 1 that never reads outside behind it."""
    t = data.draw(scatterings(dims))
    g = geometry.pointwise(3, t.structure.inputs, 1, dims, has_bias=False)
    point = AffineMap(g, noise(g.outputs, g.inputs, *g.window), None)
    inside = geometry.convolution(
        t.structure.outputs, 3, 1, *((n,) * dims for n in (window, 1, 1, 0, 0)), has_bias=True
    )
    behind = AffineMap(inside, noise(3, t.structure.outputs, *inside.window), noise(3))
    composed = affine.compose(behind, affine.compose(t, point))
    assert isinstance(composed, AffineMap)
    for size in sizes(dims, 5):
        x = noise(1, g.inputs, *size)
        middle = apply(t, apply(point, x)) if runs(t, size) else x[:, :, :0]
        if middle.numel() and runs(behind, tuple(middle.shape[2:])):
            assert error(apply(behind, middle), apply(composed, x)) < EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_a_sum_that_is_not_refused_is_exact_at_every_size(dims: int, data: Drawn) -> None:
    a = data.draw(scatterings(dims))
    g = a.structure
    b = data.draw(scatterings(dims, g.inputs, g.outputs, stride=g.stride, extent=g.extent))
    total = affine.add(a, b)
    assert _structure(total) == geometry.add(g, b.structure)
    for size in sizes(dims, 6):
        if runs(a, size):
            x = noise(2, g.inputs, *size)
            assert error(apply(a, x) + apply(b, x), apply(total, x)) < EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_a_concatenation_is_exact(dims: int, data: Drawn) -> None:
    a = data.draw(scatterings(dims))
    g = a.structure
    b = data.draw(scatterings(dims, g.inputs, stride=g.stride, extent=g.extent))
    whole = affine.stack([a, b])
    for size in sizes(dims, 5):
        if runs(a, size):
            x = noise(2, g.inputs, *size)
            assert error(torch.cat([apply(a, x), apply(b, x)], 1), apply(whole, x)) < EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_with_stride_1_gathering_and_scattering_are_one(dims: int, data: Drawn) -> None:
    m = data.draw(maps(dims, stride=(1,) * dims))
    turned = affine.scattered(m)
    assert affine.gathered(turned).structure == m.structure
    assert torch.equal(affine.gathered(turned).kernel, m.kernel)
    for size in sizes(dims, 6):
        if runs(m, size):
            x = noise(2, m.structure.inputs, *size)
            assert error(apply(m, x), apply(turned, x)) < EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_whatever_begins_and_ends_anywhere_has_a_form_that_torch_takes(dims: int, data: Drawn) -> None:
    m = data.draw(scatterings(dims))
    shift = [data.draw(st.integers(-4, 4)) for _ in range(dims)]
    longer = [data.draw(st.integers(-4, 4)) for _ in range(dims)]
    s = m.structure
    s = replace(
        s,
        lo=tuple(a + b for a, b in zip(s.lo, shift, strict=True)),
        extent=tuple(a + b for a, b in zip(s.extent, longer, strict=True)),
    )
    m = replace(m, structure=s)
    t = realisable(_structure(m))
    assert all(p >= 0 for p in t.padding)
    assert all(0 <= q < max(a, d) for q, a, d in zip(t.output_padding, t.stride, t.dilation, strict=True))
    for size in sizes(dims, 7 if dims < 3 else 5):
        if runs(m, size):
            x = noise(2, t.inputs, *size)
            assert error(apply(m, x), _torch(t, affine.placed(m, t), m.bias, x)) < EXACT


@given(data=st.data())
@_quietly
def test_what_torch_takes_already_gets_no_taps_of_zero(data: Drawn) -> None:
    t = _structure(data.draw(scatterings(2)))
    assert realisable(t) == t


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_two_ways_to_keep_a_kernel_are_each_other_s_inverse(groups: int) -> None:
    kernel = noise(8, 12 // groups, 3, 2)
    other = exchanged(kernel, groups)
    assert other.shape == (12, 8 // groups, 3, 2)
    assert torch.equal(exchanged(other, groups), kernel)


@given(n=st.integers(1, 6), extent=st.integers(-3, 4), stride=st.integers(2, 4))
@_quietly
def test_the_input_length_of_an_output_length_is_known_or_there_is_none(
    n: int, extent: int, stride: int
) -> None:
    t = replace(up(stride=stride), extent=(extent,))
    length = stride * (n - 1) + 1 + extent
    assert t.length_in(0, length) == n
    assert t.length_in(0, length + 1) is None
    assert t.length_in(0, extent) is None


@DIMS
@given(data=st.data(), factor=st.sampled_from([ScalarMap(-1.0), ScalarMap(0.5), ScalarMap(2.0, 1.0)]))
@_quietly
def test_numbers_and_maps_per_channel_scale_the_axis_that_is_theirs(
    dims: int, data: Drawn, factor: ScalarMap
) -> None:
    """As many inputs as outputs, so that the wrong axis would not show in the shapes."""
    m = data.draw(scatterings(dims, 4, 4))
    per_channel = affine.channelwise(noise(4, seed=3), noise(4, seed=4), dims)
    for after, before in ((factor, m), (per_channel, m), (m, affine.without_bias(per_channel))):
        composed = affine.compose(after, before)
        assert _structure(composed).groups == m.structure.groups
        assert _compare(after, before, composed, 4, dims) < EXACT


SHIFT = "before a transposed convolution with stride [2]: every output is reached by other taps"


@pytest.mark.parametrize(
    ("after", "before", "reason"),
    [
        (up(2), conv(1, bias=1), f"a per-channel shift {SHIFT}"),
        (up(1), conv(1, bias=1), f"a per-channel shift {SHIFT}"),
        (up(2), Scalar(has_bias=True), f"a constant shift {SHIFT}"),
        (up(2), up(2, bias=1), f"a per-channel shift {SHIFT}"),
        (conv(near=1), up(bias=1), "a per-channel shift before zero padding"),
        (conv(near=1), up(padding=1), "zero padding behind a transposed convolution that ends inside"),
        (conv(1, near=0, far=1), up(padding=1), "zero padding behind a transposed convolution"),
        (up(4), conv(near=1), "a transposed convolution behind a window that reaches over the border"),
        (up(4), up(padding=1), "a transposed convolution behind a window that reaches over the border"),
        (up(4), conv(1, near=-1), "a crop before a transposed convolution: the cropped values"),
        (up(4), conv(1, near=0, far=-1), "a crop before a transposed convolution"),
        (up(), conv(stride=2), "a layer with stride [2] skips positions between those of a transposed one"),
        (conv(stride=2), up(), "a layer with stride [2] skips positions"),
        (up(inputs=3), conv(1), "channel counts differ (4 and 3)"),
        (up(), geometry.pointwise(4, 4, 1, 2, has_bias=False), "different axes of the tensor"),
    ],
)
def test_a_composition_is_refused_in_words(
    after: Transposed | Geometry, before: Transposed | Geometry | Scalar, reason: str
) -> None:
    with pytest.raises(Inexact) as refused:
        geometry.compose(after, before)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("after", "before"),
    [
        (up(2, padding=1), conv(1, near=-1)),
        (up(2), conv(near=2)),
        (up(4), conv(1, near=1)),
        (conv(near=1), up(2)),
        (conv(near=-1), up(padding=1, bias=1)),
        (conv(1, near=-1, bias=1), up(padding=1, bias=1)),
        (up(2, padding=1), up(4, padding=1)),
    ],
    ids=["cropped twice", "full", "padded", "nothing cut off", "crop", "crop and shift", "cut off anyway"],
)
def test_borders_that_do_not_meet_the_output_are_not_refused(
    after: Transposed | Geometry, before: Transposed | Geometry
) -> None:
    assert isinstance(geometry.compose(after, before), Transposed)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (up(), up(stride=3), "the branches have different strides ([2] and [3])"),
        (up(), conv(1), "the branches have different strides ([1] and [2])"),
        (conv(1, stride=2), up(), "a layer with stride [2] skips positions between"),
        (up(), Scalar(identity=True), "the branches have different strides ([1] and [2])"),
        (up(4), up(2), "the branches give different output sizes for some input sizes"),
        (up(outputs=8), up(), "the sum broadcasts over channels"),
        (up(inputs=8), Scalar(), "the sum broadcasts over channels"),
    ],
)
def test_a_sum_is_refused_in_words(a: Any, b: Any, reason: str) -> None:
    for first, second in ((a, b), (b, a)):
        with pytest.raises(Inexact) as refused:
            geometry.add(first, second)
        assert reason in str(refused.value)


def test_a_concatenation_is_refused_in_words() -> None:
    with pytest.raises(Inexact, match="different strides"):
        geometry.stack([up(), conv()])
    with pytest.raises(Inexact, match="different output sizes"):
        geometry.stack([up(4), up(2)])


def test_a_scale_stays_where_it_is_in_groups() -> None:
    """Output 5 of 6 in 2 groups is column 2 of the second group's rows."""
    kernel = torch.ones(6, 2, 1, dtype=torch.float64)
    m = AffineMap(up(1, inputs=4, outputs=6, groups=2), kernel, None)
    scale = torch.arange(1.0, 7.0, dtype=torch.float64)
    composed = affine.compose(affine.channelwise(scale, None, 1), m)
    assert isinstance(composed, AffineMap)
    weight = exchanged(composed.kernel, 2)
    assert weight[:2, :, 0].tolist() == [[1, 2, 3]] * 2
    assert weight[2:, :, 0].tolist() == [[4, 5, 6]] * 2
