"""Tensors in another layout are recognised, and others are not taken for them."""

from __future__ import annotations

import pytest
import torch

from reparamkit.compare.layout import in_words, permutation, permuted_shape

MAP = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (0, 1, 3, 2)])
def test_each_order_is_found(order: tuple[int, ...]) -> None:
    assert permutation(MAP.permute(order), MAP) == order
    words = f": it looks like the reference's with axes permuted ({', '.join(map(str, order))})"
    assert in_words(MAP.permute(order), MAP) == words


def test_sizes_that_are_alike_hide_nothing() -> None:
    cube = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert permutation(cube.permute(0, 2, 3, 1), cube) == (0, 2, 3, 1)
    assert permutation(cube, cube) is None
    row = torch.randn(1, 8, 1, generator=torch.Generator().manual_seed(0))
    assert in_words(row + 1e-3, row) == ""


def test_a_little_noise_is_no_obstacle_and_much_is() -> None:
    turned = MAP.permute(0, 2, 3, 1)
    assert permutation(turned + 1e-3, MAP) == (0, 2, 3, 1)
    assert permutation(turned + 1.0, MAP) is None
    assert in_words(turned + 1.0, MAP) == ""


def test_other_shapes_of_the_same_values() -> None:
    assert in_words(MAP.reshape(2, 3, 20), MAP) == ": it holds the reference's values in another shape"
    assert in_words(MAP.reshape(2, 3, 20) + 1, MAP) == ""
    assert in_words(MAP[:1], MAP) == ""
    assert in_words(MAP, MAP) == ""
    assert in_words(torch.ones(1), torch.ones(1, 1)) == ""


def test_nan_is_like_nothing() -> None:
    assert in_words(torch.full_like(MAP.permute(0, 2, 3, 1), float("nan")), MAP) == ""


def test_shapes_alone() -> None:
    assert permuted_shape((1, 224, 224, 3), (1, 3, 224, 224)) == (0, 2, 3, 1)
    assert permuted_shape((1, 3, 224, 224), (1, 224, 224, 3)) == (0, 3, 1, 2)
    assert permuted_shape((1, 3, 224, 224), (1, 3, 224, 224)) is None
    assert permuted_shape((1, 3, 8, 8), (1, 4, 8, 8)) is None
    assert permuted_shape((1, 3), (1, 3, 1)) is None
