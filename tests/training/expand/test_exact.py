"""The numbers that branches are made of: sums and products without rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from reparamkit.training.expand import exact
from reparamkit.training.expand.geometry import geometry_of
from reparamkit.training.expand.shares import Shares

DTYPES = torch.float64, torch.float32, torch.float16, torch.bfloat16


def held(values: exact.Array, dtype: torch.dtype) -> bool:
    """Whether a precision holds these numbers as they are."""
    return bool(np.array_equal(exact.nearest(values, dtype), values))


@pytest.mark.parametrize("dtype", DTYPES)
def test_significant_bits_are_those_of_the_format(dtype: torch.dtype) -> None:
    bits = exact.significant_bits(dtype)
    one = torch.ones((), dtype=dtype)
    assert one + 2.0 ** (1 - bits) != one
    assert exact.nearest(np.array([1 + 2.0**-bits]), dtype) == 1 or dtype is torch.float64


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_unit_is_the_distance_to_the_next_number(dtype: torch.dtype) -> None:
    numbers = [1.0, 1.5, -3.0, 0.1, 2.0**-12, torch.finfo(dtype).smallest_normal]
    values = exact.nearest(np.array(numbers), dtype)
    units = exact.units(values, dtype)
    assert held(values + np.copysign(units, values), dtype)
    if dtype is not torch.float64:
        assert not held(values + np.copysign(units / 2, values), dtype)
    assert exact.units(np.zeros(2), dtype).tolist() == [0, 0]


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(
    dtype=st.sampled_from(DTYPES),
    scale=st.integers(-14, 7),
    spread=st.floats(0, 3),
    point=st.booleans(),
    seed=st.integers(0, 2**30),
)
def test_a_norm_multiplies_exactly_and_shifts_nothing(
    dtype: torch.dtype, scale: int, spread: float, point: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    half = exact.significant_bits(dtype) // 2
    mean = random.standard_normal(7) * 2.0**scale
    variance = 4.0**scale * np.exp(spread * random.standard_normal(7))
    assume(variance.max() < 3e4 or dtype is not torch.float16)
    factor = np.full(7, 0.5) if point else exact.rounded(random.uniform(-1, 1, 7), half)
    if dtype is torch.float16:
        factor = exact.cut(factor, np.array(exact.factor_unit(dtype)))
    numbers, epsilon = exact.norm_numbers(factor, mean, variance, dtype)
    assert all(held(values, dtype) for values in numbers.values())
    deviation = np.sqrt(numbers["running_var"] + epsilon)
    assert np.array_equal(numbers["weight"] / deviation, factor)
    assert np.array_equal(numbers["bias"], factor * numbers["running_mean"])
    assert (numbers["running_var"] >= 0).all()
    # ε is no more than the last of half the bits asks for.
    floor = max(4.0 * variance.max() * 4.0 ** (1 - half), 2.0**-13)
    assert np.allclose(deviation, np.sqrt(variance + epsilon), rtol=2.0 ** (1 - half))
    assert epsilon <= floor


def test_a_norm_keeps_the_statistics_of_float32_to_three_digits() -> None:
    random = np.random.default_rng(0)
    mean, variance = random.standard_normal(50), np.exp(3 * random.standard_normal(50))
    numbers, epsilon = exact.norm_numbers(np.ones(50), mean, variance, torch.float32)
    assert np.allclose(numbers["running_mean"], mean, rtol=1e-6)
    assert np.allclose(numbers["running_var"] + epsilon, variance + epsilon, rtol=5e-4)


def test_statistics_beyond_the_precision_are_named() -> None:
    with pytest.raises(exact.NotRepresentable, match="overflow in float16"):
        exact.norm_numbers(np.ones(1), np.zeros(1), np.array([1e6]), torch.float16)


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**30),
    kernel=st.sampled_from([(1,), (3,), (3, 3), (4, 2), (7, 7), (3, 3, 3)]),
    groups=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from(["normal", "wide", "sparse", "zero", "constant"]),
)
def test_the_parts_add_up_and_each_is_held(
    dtype: torch.dtype, seed: int, kernel: tuple[int, ...], groups: int, kind: str
) -> None:
    random = np.random.default_rng(seed)
    shape = (4, 4 // groups, *kernel)
    values = random.standard_normal(shape)
    if kind == "wide":
        values *= np.exp(4 * random.standard_normal(shape)).clip(max=1e3)
    if kind == "sparse":
        values *= random.uniform(size=shape) < 0.3
    if kind == "zero":
        values *= 0
    if kind == "constant":
        values = np.ones(shape)
    weight = exact.nearest(values, dtype)
    layers: list[type[Any]] = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    conv = layers[len(kernel) - 1](4, 4, kernel, groups=groups)
    geometry, _ = geometry_of(conv)
    shares = Shares(weight, dtype, random)
    point, whole = geometry.centred((1,) * len(kernel)), geometry.whole()
    for part in (whole, whole, point):
        shares.expect(part)
    shares.expect(point, diagonal=True)
    parts = [shares.take(whole), shares.take(point)]
    factor = shares.take_diagonal(point)
    bits = exact.significant_bits(dtype) - math.ceil(math.log2(max(2, math.prod(kernel))))
    mean = shares.take_mean(bits)
    assert all(held(part, dtype) for part in (*parts, factor, shares.left, math.prod(kernel) * mean))
    diagonal = np.zeros(shape)
    for channel in range(4):
        inside = channel % (4 // groups)
        diagonal[(channel, inside, *point.start)] = factor[channel]
    spread = mean.reshape(*mean.shape, *(1,) * len(kernel))
    # In float64 the sum itself rounds.
    total = sum(parts) + diagonal + spread + shares.left
    assert np.allclose(total, weight, rtol=0 if dtype is not torch.float64 else 1e-15, atol=0)
    if kind == "normal" and len(kernel) > 1 and dtype in (torch.float32, torch.float64):
        assert all(np.abs(part).max() > 0.01 for part in (*parts, shares.left, factor))
        assert np.abs(mean).max() > 0
