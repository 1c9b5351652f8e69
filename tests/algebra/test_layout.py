"""Layouts against index arithmetic that is done on numbers."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from reparamkit.algebra.layout import Digit, Layout, Monomial, product, quotient

N, H = Monomial(1, ("n",)), Monomial(1, ("h",))


def _divided(count: int, rng: random.Random) -> list[int]:
    """Sizes with this product."""
    sizes = []
    for _ in range(rng.randint(0, 3)):
        sizes.append(rng.choice([d for d in range(1, count + 1) if count % d == 0]))
        count //= sizes[-1]
    sizes.append(count)
    rng.shuffle(sizes)
    return sizes


def _step(layout: Layout, numbers: Tensor, rng: random.Random) -> tuple[Layout | None, Tensor]:
    """One random move of both: the layout of a tensor, and the tensor that holds the channels' numbers."""
    kind = rng.choice(["reshape", "reshape", "permute", "cut", "select"])
    if kind == "permute":
        order = rng.sample(range(numbers.ndim), numbers.ndim)
        return layout.permuted(order), numbers.permute(order)
    if kind == "cut" and numbers.ndim:
        axis = rng.randrange(numbers.ndim)
        start = rng.randrange(numbers.shape[axis])
        kept = torch.arange(start, rng.randint(start + 1, numbers.shape[axis]), rng.choice([1, 1, 2, 3]))
        step = int(kept[1] - kept[0]) if len(kept) > 1 else 1
        return layout.cut(axis, start, len(kept), step), numbers.index_select(axis, kept)
    if kind == "select" and numbers.ndim > 1:
        axis = rng.randrange(numbers.ndim)
        index = rng.randrange(numbers.shape[axis])
        return layout.selected(axis, index), numbers.select(axis, index)
    sizes = _divided(numbers.numel(), rng)
    return layout.reshaped(sizes), numbers.reshape(sizes)


@pytest.mark.parametrize("first", range(0, 3000, 500))
def test_moves_of_random_tensors(first: int) -> None:
    told = 0
    for seed in range(first, first + 500):
        rng = random.Random(seed)
        shape = [rng.choice([1, 2, 3, 4, 6, 8, 12]) for _ in range(rng.randint(1, 4))]
        axis = rng.randrange(len(shape))
        layout = Layout.of(shape, axis)
        along = [-1 if a == axis else 1 for a in range(len(shape))]
        numbers = torch.arange(shape[axis]).view(along).expand(shape).contiguous()
        for _ in range(rng.randint(1, 5)):
            assert layout is not None
            layout, numbers = _step(layout, numbers, rng)
            if layout is None:
                break
            assert layout.sizes == tuple(numbers.shape)
        else:
            assert layout is not None
            assert torch.equal(layout.channels().expand(numbers.shape), numbers)
            told += 1
    assert told > 400


def test_channels_split_over_two_axes() -> None:
    layout = Layout.of((N, 8, H), 1)
    assert layout is not None
    split = layout.reshaped((product([4, N]), 2, H))
    assert split is not None
    assert split.axes == ((Digit(N), Digit(4, 2)), (Digit(2, 1),), (Digit(H),))
    assert split.channel_axis is None
    assert split.reshaped((N, 8, H)) == layout


def test_sizes_that_vary_are_divided_exactly_or_not_at_all() -> None:
    assert quotient(product([6, N, H]), product([2, H])) == Monomial(3, ("n",))
    assert quotient(N, 2) is None
    assert quotient(6, N) is None
    layout = Layout.of((N, H, 12), 2)
    assert layout is not None
    heads = layout.reshaped((product([N, H]), 3, 4))
    assert heads is not None
    assert heads.channels().tolist() == torch.arange(12).view(1, 3, 4).tolist()
    assert layout.reshaped((N, product([H, 6]), 2)) is not None
    assert layout.reshaped((product([N, 5]), product([H, 12]))) is None


def test_channels_are_not_averaged() -> None:
    layout = Layout.of((2, 6, 4), 1)
    assert layout is not None
    assert layout.without([1]) is None
    assert layout.without([2], keep=True) == Layout.of((2, 6, 1), 1)
    assert layout.resized((2, 5, 4)) is None
    assert layout.resized((2, 6, 9)) == Layout.of((2, 6, 9), 1)


def test_a_number_of_channels_that_varies_has_no_layout() -> None:
    assert Layout.of((2, N), 1) is None
