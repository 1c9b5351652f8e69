"""Sums, compositions and concatenations of random maps against torch's convolutions, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reparamkit.algebra import IDENTITY, AffineMap, Geometry, Inexact, Numbers, ScalarMap, affine, geometry
from tests.algebra.maps import apply, error, formula, maps, runs, sizes
from tests.nets import noise

EXACT = 1e-11
DIMS = pytest.mark.parametrize("dims", [0, 1, 2, 3])
Drawn = st.DataObject
_quietly = settings(deadline=None, derandomize=True, max_examples=80, database=None)
_scalars = st.sampled_from(
    [IDENTITY, ScalarMap(-1.0), ScalarMap(0.5, 2.0), ScalarMap(1.0, -1.0), ScalarMap(0.0)]
)


@DIMS
@given(data=st.data())
@settings(_quietly, max_examples=25)
def test_a_map_is_the_formula_of_its_definition(dims: int, data: Drawn) -> None:
    m = data.draw(maps(dims))
    for size in sizes(dims, 6 if dims < 3 else 4):
        if runs(m, size):
            x = noise(2, m.structure.inputs, *size)
            assert error(formula(m, x), apply(m, x)) < EXACT


def _refusal(after: Numbers, before: Numbers) -> str | None:
    try:
        affine.compose(after, before)
    except Inexact as reason:
        return str(reason)
    return None


def _compare_composition(after: Numbers, before: Numbers, composed: Numbers, inputs: int, dims: int) -> float:
    """The largest error over all sizes at which both steps run; NaN where there is none."""
    worst = float("nan")
    for size in sizes(dims):
        if not runs(before, size):
            continue
        x = noise(2, inputs, *size)
        middle = apply(before, x)
        if middle.numel() == 0 or not runs(after, tuple(middle.shape[2:])):
            continue
        expected = apply(after, middle)
        if not runs(composed, size):
            continue  # padded, then cropped by more than there was
        off = error(expected, apply(composed, x))
        worst = off if worst != worst else max(worst, off)
    return worst


@DIMS
@given(data=st.data())
@_quietly
def test_a_composition_that_is_not_refused_is_exact_at_every_size(dims: int, data: Drawn) -> None:
    before = data.draw(maps(dims))
    after = data.draw(maps(dims, inputs=before.structure.outputs))
    try:
        composed = affine.compose(after, before)
    except Inexact:
        return
    assert isinstance(composed, AffineMap)
    assert composed.structure == geometry.compose(after.structure, before.structure)
    assert not _compare_composition(after, before, composed, before.structure.inputs, dims) > EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_unpadded_maps_always_compose(dims: int, data: Drawn) -> None:
    """Nothing is read outside, so nothing may be refused: shifts, strides, dilations and groups are free."""
    before = data.draw(maps(dims))
    after = data.draw(maps(dims, inputs=before.structure.outputs))
    g = after.structure
    assert isinstance(g, Geometry)
    inside = tuple(min(p, 0) for p in g.near), tuple(min(p, 0) for p in g.far)
    g = geometry.convolution(
        g.inputs, g.outputs, g.groups, g.window, g.stride, g.dilation, *inside, has_bias=g.has_bias
    )
    after = AffineMap(g, after.kernel, after.bias)
    composed = affine.compose(after, before)
    assert not _compare_composition(after, before, composed, before.structure.inputs, dims) > EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_a_composition_refused_for_its_padding_would_be_wrong(dims: int, data: Drawn) -> None:
    """Without the guard the same kernel is a different function at some size: every refusal is needed.

    (Where the second map has a stride, it may step over the one padded position that would be wrong.)
    """
    before = data.draw(maps(dims))
    after = data.draw(maps(dims, inputs=before.structure.outputs, stride=(1,) * dims))
    reason = _refusal(after, before)
    if reason is None:
        return
    assert "zero padding" in reason
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(geometry, "_require_inside", lambda *_: None)
        patched.setattr(geometry, "_require_zero_outside", lambda *_: None)
        naive = affine.compose(after, before)
    worst = 0.0
    for size in [*sizes(dims, 14), *(tuple(n + axis for axis in range(dims)) for n in range(21, 27))]:
        x = noise(2, before.structure.inputs, *size)
        if runs(before, size) and (middle := apply(before, x)).numel() and runs(after, middle.shape[2:]):
            if not runs(naive, size):
                return
            worst = max(worst, error(apply(after, middle), apply(naive, x)))
    assert worst > 1e-6


@DIMS
@given(data=st.data(), scalar=_scalars, first=st.booleans())
@_quietly
def test_a_number_before_or_after_a_map_is_exact_or_refused(
    dims: int, data: Drawn, scalar: ScalarMap, first: bool
) -> None:
    m = data.draw(maps(dims))
    after, before = (m, scalar) if first else (scalar, m)
    reason = _refusal(after, before)
    if reason is not None:
        assert first
        assert scalar.beta != 0.0
        assert isinstance(m.structure, Geometry)
        assert any(p > 0 for p in (*m.structure.near, *m.structure.far))
        assert reason.startswith("a constant shift before zero padding")
        return
    composed = affine.compose(after, before)
    assert not _compare_composition(after, before, composed, m.structure.inputs, dims) > EXACT


@DIMS
@given(data=st.data())
@_quietly
def test_a_sum_that_is_not_refused_is_exact_at_every_size(dims: int, data: Drawn) -> None:
    a = data.draw(maps(dims))
    g = a.structure
    fixed: dict[str, Any] = {"stride": g.stride, "extent": g.extent}
    b = data.draw(maps(dims, inputs=g.inputs, outputs=g.outputs, **fixed))
    total = affine.add(a, b)
    assert isinstance(total, AffineMap)
    assert total.structure == geometry.add(g, b.structure)
    for size in sizes(dims):
        if runs(a, size) and runs(b, size):
            x = noise(2, g.inputs, *size)
            assert error(apply(a, x) + apply(b, x), apply(total, x)) < EXACT


@DIMS
@given(data=st.data(), scalar=_scalars)
@_quietly
def test_a_number_joins_a_sum_as_a_map_per_channel(dims: int, data: Drawn, scalar: ScalarMap) -> None:
    flat: dict[str, Any] = {"stride": (1,) * dims, "extent": (0,) * dims}
    m = data.draw(maps(dims, inputs=4, outputs=4, **flat))
    for total in (affine.add(m, scalar), affine.add(scalar, m)):
        for size in sizes(dims):
            if runs(m, size):
                x = noise(2, 4, *size)
                assert error(apply(m, x) + apply(scalar, x), apply(total, x)) < EXACT


@pytest.mark.parametrize("groups", [(64, 1), (33, 1), (66, 2), (66, 33), (6, 4), (12, 8)])
def test_groups_are_reduced_to_their_common_divisor(groups: tuple[int, int]) -> None:
    """Above 32 blocks another way of writing them down is taken."""
    channels = 132 if groups[0] in (33, 66) else 64 if groups[0] == 64 else 24
    parts = []
    for seed, count in enumerate(groups):
        structure = geometry.pointwise(channels, channels, count, 1, has_bias=False)
        parts.append(AffineMap(structure, noise(channels, channels // count, 1, seed=seed), None))
    x = noise(2, channels, 5, seed=9)
    total, composed = affine.add(*parts), affine.compose(parts[1], parts[0])
    assert isinstance(total, AffineMap)
    assert total.structure.groups == torch.tensor(0).gcd_(torch.tensor(groups[0])).gcd_(
        torch.tensor(groups[1])
    )
    assert error(apply(parts[0], x) + apply(parts[1], x), apply(total, x)) < EXACT
    assert error(apply(parts[1], apply(parts[0], x)), apply(composed, x)) < 1e-9


@DIMS
@given(data=st.data(), count=st.integers(1, 3))
@_quietly
def test_a_concatenation_of_maps_is_exact(dims: int, data: Drawn, count: int) -> None:
    first = data.draw(maps(dims))
    g = first.structure
    fixed: dict[str, Any] = {"stride": g.stride, "extent": g.extent}
    parts = [first, *(data.draw(maps(dims, inputs=g.inputs, **fixed)) for _ in range(count))]
    whole = affine.stack(parts)
    for size in sizes(dims):
        if all(runs(p, size) for p in parts):
            x = noise(2, g.inputs, *size)
            assert error(torch.cat([apply(p, x) for p in parts], 1), apply(whole, x)) < EXACT


@given(data=st.data(), dims=st.integers(1, 2))
@_quietly
def test_composition_is_associative_wherever_it_is_exact(data: Drawn, dims: int) -> None:
    a = data.draw(maps(dims))
    b = data.draw(maps(dims, inputs=a.structure.outputs))
    c = data.draw(maps(dims, inputs=b.structure.outputs))
    try:
        left, right = affine.compose(affine.compose(c, b), a), affine.compose(c, affine.compose(b, a))
    except Inexact:
        return
    assert isinstance(left, AffineMap)
    assert isinstance(right, AffineMap)
    for size in sizes(dims):
        if runs(left, size) and runs(right, size):
            x = noise(1, a.structure.inputs, *size)
            assert error(apply(left, x), apply(right, x)) < 1e-9


def test_nothing_that_goes_in_is_written_to() -> None:
    g = geometry.convolution(4, 4, 2, (3,), (1,), (1,), (1,), (1,), has_bias=True)
    m = AffineMap(g, noise(4, 2, 3), noise(4))
    one = affine.channelwise(noise(4, seed=1), noise(4, seed=2), 1)
    numbers = [t for t in (m.kernel, m.bias, one.kernel, one.bias) if t is not None]
    kept = [t.clone() for t in numbers]
    operations: list[Callable[[], Any]] = [
        lambda: affine.add(m, one),
        lambda: affine.compose(one, m),
        lambda: affine.stack([m, m]),
        lambda: affine.without_bias(m),
        lambda: affine.add(m, ScalarMap(2.0, 1.0)),
    ]
    for operation in operations:
        result = operation()
        result.kernel.mul_(3)
    assert all(torch.equal(a, b) for a, b in zip(kept[1:], numbers[1:], strict=True))


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.2), (1e-20, 1e20)])
def test_numbers_are_kept_in_float64(before: float, after: float) -> None:
    scale = torch.tensor([before], dtype=torch.float64)
    m = affine.compose(ScalarMap(after), affine.channelwise(scale, None, 2))
    assert isinstance(m, AffineMap)
    assert m.kernel.dtype == torch.float64
    assert m.kernel.item() == before * after
