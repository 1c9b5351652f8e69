"""Convolutions behind paddings by what is there: of one mode, of several widths, and of the value itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.laws.left import left
from tests.nets import noise

IMAGE = noise(2, 4, 7, 8)
MODES = pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@pytest.mark.diagonal
@MODES
@DIMS
@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_equal_paddings(mode: str, dims: int, dynamic: Any) -> None:
    def conv() -> nn.Module:
        return _CONVS[dims](4, 5, 3, padding=1, padding_mode=mode)

    x = noise(2, 4, *(6, 7, 5)[:dims])
    parts = {"a": conv(), "b": conv(), "norm": _NORMS[dims](5)}
    kept = left(lambda s, x: (s.a(x) + s.norm(s.b(x))).relu(), x, dynamic, **parts)
    assert kept == {"pad": 1, f"conv{dims}d": 1, "relu": 1}


ONE: dict[str, Callable[[Any, Tensor, str], Any]] = {
    "RepVGG's block": lambda s, x, mode: s.three(x) + s.norm(s.one(x)) + x,
    "the narrow one first": lambda s, x, mode: s.one(x) + s.three(x) + s.five(x),
    "the wide one first": lambda s, x, mode: s.five(x) + x * 2.0 + s.three(x),
    "a difference": lambda s, x, mode: s.five(x) - s.three(x),
    "uneven": lambda s, x, mode: (
        s.bare(F.pad(x, (1, 1, 1, 1), mode)) + s.two(F.pad(x, (0, 1, 1, 0), mode)) + x
    ),
    "one axis": lambda s, x, mode: (
        s.bare(F.pad(x, (1, 1, 1, 1), mode)) + s.flat(F.pad(x, (1, 1, 0, 0), mode))
    ),
}


@pytest.mark.diagonal
@MODES
@pytest.mark.parametrize("name", ONE)
def test_several_widths_are_one_layer(name: str, mode: Any) -> None:
    parts = {
        "one": nn.Conv2d(4, 4, 1),
        "norm": nn.BatchNorm2d(4),
        "three": nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode),
        "five": nn.Conv2d(4, 4, 5, padding=2, padding_mode=mode, bias=False),
        "bare": nn.Conv2d(4, 4, 3),
        "two": nn.Conv2d(4, 4, 2),
        "flat": nn.Conv2d(4, 4, (1, 3)),
    }
    kept = left(lambda s, x: ONE[name](s, x, mode).relu(), IMAGE, **parts)
    assert kept.pop("pad") <= (3 if name in ("uneven", "one axis") else 1)
    assert kept == {"conv2d": 1, "relu": 1}


@MODES
def test_a_norm_in_front_of_the_padding_goes_behind_it(mode: Any) -> None:
    conv = nn.Conv2d(4, 5, 3, padding=1, padding_mode=mode)
    kept = left(lambda s, x: s.conv(s.norm(x.relu())), IMAGE, conv=conv, norm=nn.BatchNorm2d(4))
    assert kept == {"relu": 1, "pad": 1, "conv2d": 1}


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: s.a(F.pad(x, (1, 1, 1, 1), "reflect")) + s.b(F.pad(x, (1, 1, 1, 1), "replicate")),
        lambda s, x: s.a(F.pad(x, (2, 0, 1, 1), "reflect")) + s.b(F.pad(x, (1, 1, 1, 1), "reflect")),
        lambda s, x: s.a(F.pad(x, (1, 1, 1, 1), "reflect")) + s.c(x),
        lambda s, x: s.a(F.pad(x, (1, 1, 1, 1), "reflect")) + s.b(F.pad(x.relu(), (1, 1, 1, 1), "reflect")),
    ],
    ids=["other modes", "neither holds the other", "zeros around", "other values"],
)
def test_they_stay_two(forward: Callable[..., Any]) -> None:
    parts = {"a": nn.Conv2d(4, 4, 3), "b": nn.Conv2d(4, 4, 3), "c": nn.Conv2d(4, 4, 3, padding=1)}
    assert left(forward, IMAGE, **parts)["conv2d"] == 2


def test_a_sum_with_the_value_itself_where_the_padding_has_another_reader() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        padded = F.pad(x, (1, 1, 1, 1), "reflect")
        return (s.a(padded) + x).relu(), padded.exp()

    kept = left(forward, IMAGE, a=nn.Conv2d(4, 4, 3))
    assert kept == {"pad": 1, "conv2d": 1, "relu": 1, "exp": 1}


def test_a_norm_that_one_reader_needs_and_another_one_passes_by() -> None:
    """The padding is written down again on the convolution; its own operand has become a folded layer."""

    def forward(s: Any, x: Tensor) -> Any:
        y = s.norm(s.conv(x))
        z = s.one(s.again(y))
        return s.padded(y) + z, s.wide(z), y.exp()

    parts = {
        "conv": nn.Conv2d(4, 1, 3, padding=1),
        "norm": nn.BatchNorm2d(1),
        "again": nn.BatchNorm2d(1),
        "one": nn.Conv2d(1, 1, 1),
        "padded": nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        "wide": nn.Conv2d(1, 6, (1, 3)),
    }
    assert "batch_norm" not in left(forward, IMAGE, **parts)
