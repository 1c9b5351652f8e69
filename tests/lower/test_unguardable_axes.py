"""In a file that cannot refuse a size, an axis is free only where every size is answered rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.capture.program import Program
from reparamkit.lower.unguardable_axes import exportable_axes
from tests.nets import Net, PairNet, noise, randomised

SHAPE = (2, 3, 8, 9)


def _settled(forward: Callable[..., Any], *inputs: Tensor, kind: type[Net] = Net) -> dict[str, str]:
    """Axis of the inputs, as "x.shape[0]", that must not be free -> why."""
    given = inputs or (noise(*SHAPE, dtype=torch.float32),)
    net = randomised(kind(forward, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4)))
    folded = rk.fold(net, given)
    program = folded.lowering.program
    assert isinstance(program, Program)
    left = exportable_axes(program, folded.lowering.unguardable)
    assert all(
        symbol not in folded.lowering.unguardable for axes in left.values() for symbol in axes.values()
    )
    return {
        f"{program.input_names[index]}.shape[{axis}]": reason
        for symbol, reason in folded.lowering.unguardable.items()
        for index, axis in program.places_with(symbol)
    }


FREE: dict[str, Callable[..., Any]] = {
    "layers": lambda s, x: s.norm(s.conv(x)).relu(),
    "pooled": lambda s, x: F.avg_pool2d(s.conv(x), 2),  # sizes that are too small, the network refuses itself
    "a head": lambda s, x: s.conv(x).mean((2, 3)).flatten(1),
    "a matrix product": lambda s, x: s.conv(x).flatten(2) @ s.conv(x).flatten(2).mT,
}


@pytest.mark.parametrize("name", FREE)
def test_where_nothing_is_asked_all_stay_free(name: str) -> None:
    assert _settled(FREE[name]) == {}


def _refusing(s: Any, x: Tensor) -> Tensor:
    if x.shape[2] % 2:
        raise ValueError("an even height, please")
    return s.conv(x)


def test_what_the_network_refuses_itself_may_stay_free() -> None:
    assert _settled(_refusing) == {}


SETTLED: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "one sample": (lambda s, x: s.conv(x) * (2 if x.shape[0] == 1 else 1), {"x.shape[0]"}),
    "one row": (lambda s, x: s.conv(x) * (2 if x.shape[2] == 1 else 1), {"x.shape[2]"}),
    "at most ten": (lambda s, x: s.conv(x) * (2 if x.shape[2] > 10 else 1), {"x.shape[2]"}),
    "one row of seven": (
        lambda s, x: s.conv(x) * (2 if x.shape[2] == 1 and x.shape[3] == 7 else 1),
        {"x.shape[2]"},
    ),
    "large": (lambda s, x: s.conv(x) * (2 if x.shape[2] > 20 and x.shape[3] > 50 else 1), {"x.shape[2]"}),
    "one sample of a wide one": (
        lambda s, x: s.conv(x) * (2 if x.shape[0] == 1 and x.shape[3] > 40 else 1),
        {"x.shape[0]"},
    ),
    "half the width as a number": (
        lambda s, x: s.conv(x) * (2 if int(x.shape[3] * 0.5) == 1 else 1),
        {"x.shape[3]"},
    ),
    "a list at a third of the height": (
        lambda s, x: s.conv(x) * [1, 2, 3, 4][x.shape[2] // 3],
        {"x.shape[2]"},
    ),
    "as often as a third of the width": (
        lambda s, x: sum(s.conv(x) * (i + 1) for i in range(x.shape[3] // 3)),
        {"x.shape[3]"},
    ),
    "few pixels, or one column": (
        lambda s, x: s.conv(x) * (2 if x.shape[3] == 1 or x.shape[0] + x.shape[2] == 2 else 1),
        {"x.shape[2]", "x.shape[3]"},
    ),
    "three sizes": (
        lambda s, x: s.conv(x) * (2 if x.shape[0] + 2 * x.shape[2] + 3 * x.shape[3] == 50 else 1),
        {"x.shape[0]", "x.shape[3]"},
    ),
    "a product": (
        lambda s, x: s.conv(x) * (2 if x.shape[0] * x.shape[2] == x.shape[3] else 1),
        {"x.shape[2]", "x.shape[3]"},
    ),
    "many pixels": (
        lambda s, x: s.conv(x) * (2 if x.shape[0] * x.shape[2] * x.shape[3] > 100_000 else 1),
        {"x.shape[0]", "x.shape[2]", "x.shape[3]"},
    ),
    "pooled to an eighth": (
        lambda s, x: F.adaptive_avg_pool2d(s.conv(x), (x.shape[2] // 8, 1)),
        {"x.shape[2]"},
    ),
    "a squeeze": (lambda s, x: s.conv(x).squeeze(2).cumsum(0), {"x.shape[2]"}),
}


@pytest.mark.diagonal(5)
@pytest.mark.parametrize("name", SETTLED)
def test_an_axis_of_which_the_network_asks_is_fixed(name: str) -> None:
    forward, axes = SETTLED[name]
    settled = _settled(forward)
    assert set(settled) == axes
    assert all(
        "the network may do something else than what was captured, which assumes" in w
        for w in settled.values()
    )


def test_a_batch_that_is_fixed_is_that_of_the_example(tmp_path: Path) -> None:
    """It is captured with a batch of two."""
    net = randomised(
        Net(lambda s, x: s.conv(x) * (2 if x.shape[0] == 4 else 1), conv=nn.Conv2d(3, 4, 3, padding=1))
    )
    rk.fold(net, noise(1, 3, 8, 9, dtype=torch.float32)).save(tmp_path / "net.onnx")
    shape = onnxruntime.InferenceSession(tmp_path / "net.onnx").get_inputs()[0].shape
    assert shape == [1, 3, "height", "width"]


def test_one_of_two_that_are_compared_is_fixed() -> None:
    settled = _settled(lambda s, x: s.conv(x).mT if x.shape[2] == x.shape[3] else s.conv(x))
    assert settled.keys() & {"x.shape[2]", "x.shape[3]"}


def test_axes_of_one_size_that_differ_are_tried() -> None:
    """With one sample in the second, the file would answer; the network compares the two."""

    def forward(s: Any, x: Tensor, y: Tensor) -> Tensor:
        z: Tensor = s.conv(x).mean((2, 3))
        return z + y if x.shape[0] == y.shape[0] else z - y

    inputs = (noise(*SHAPE, dtype=torch.float32), noise(2, 4, dtype=torch.float32))
    assert _settled(forward, *inputs, kind=PairNet).keys() == {"x.shape[0]", "y.shape[0]"}
    free = _settled(lambda s, x, y: s.conv(x).sum() + y.sum(), *inputs, kind=PairNet)
    assert free == {}
