"""Operators written down once more, on other operands, after folds have changed what is around them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.engine.laws.left import left
from tests.nets import noise


def test_the_copy_reads_what_the_original_read_and_not_what_took_its_place() -> None:
    """Once the norm was folded into the first convolution for one piece, and into `strided` for the other."""

    def forward(s: Any, x: Tensor) -> Any:
        y = s.first(x)
        one, two = s.norm(y).split([2, 2], 1)
        return s.up(y), one, s.last(s.strided(two))

    parts = {
        "first": nn.Conv3d(3, 4, 1, bias=False),
        "up": nn.ConvTranspose3d(4, 6, 1, stride=2, padding=1, groups=2, bias=False),
        "norm": nn.BatchNorm3d(4),
        "strided": nn.Conv3d(2, 2, 1, stride=(2, 1, 1)),
        "last": nn.Conv3d(2, 4, 1, bias=False),
    }
    # `first` has a reader besides the norm: it is not run twice to save that
    expected = {"conv3d": 2, "batch_norm": 1, "conv_transpose3d": 1}
    assert left(forward, noise(2, 3, 2, 3, 3), **parts) == expected


def test_a_list_of_pieces_is_written_in_front_of_whichever_is_read_first() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        one, two = s.first(x.sigmoid()).chunk(2, 1)
        return s.conv(s.second(two)), -one

    parts = {
        "first": nn.BatchNorm2d(4),
        "second": nn.BatchNorm2d(2),
        "conv": nn.Conv2d(2, 4, (3, 1), stride=2, groups=2, bias=False),
    }
    assert "batch_norm" not in left(forward, noise(2, 4, 8, 6), **parts)
