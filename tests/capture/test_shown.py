"""What the network shows to be idle is dropped; what it does not is held, by name, with a note."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from tests.nets import Net, PairNet, noise, randomised

SHAPE = (2, 3, 8, 9)


def _captured(forward: Callable[..., Any], *shape: int, **parts: Any) -> Program:
    net = randomised(Net(forward, **parts)).double()
    return capture(net, (noise(*(shape or SHAPE)),), dynamic="auto")


def _takes(program: Program, *shape: int) -> bool:
    return program.takes((noise(*shape),), {})


FREE: dict[str, Callable[..., Any]] = {
    "layers": lambda s, x: s.norm(s.conv(x)).relu(),
    "pooled and read": lambda s, x: s.conv(x).mean((2, 3)).flatten(1),
    "reshaped": lambda s, x: s.conv(x).reshape(x.shape[0], 2, 2, *x.shape[2:]).sum(1),
    "tokens": lambda s, x: s.conv(x).flatten(2).transpose(1, 2).softmax(-1),
    "its sizes as numbers": lambda s, x: s.conv(x) / (x.shape[2] * x.shape[3]),
    "a table of its width": lambda s, x: s.conv(x) + torch.arange(x.shape[3], dtype=x.dtype),
    "a matrix product": lambda s, x: x.flatten(2) @ x.flatten(2).mT,
    "interpolated": lambda s, x: F.interpolate(s.conv(x), size=x.shape[2:], mode="nearest"),
}


@pytest.mark.parametrize("name", FREE)
def test_what_is_idle_is_dropped(name: str) -> None:
    program = _captured(FREE[name], conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4))
    for shape in [(1, 3, 8, 9), (2, 3, 1, 9), (2, 3, 8, 1), (1, 3, 1, 1), (2, 3, 9, 9), (3, 3, 40, 3)]:
        assert _takes(program, *shape), shape
    assert program.notes == []
    assert program.differing == []


def test_a_batch_of_none_is_taken_where_it_is_shown() -> None:
    assert _takes(_captured(FREE["layers"], conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), 0, 3, 8, 9)
    assert not _takes(_captured(lambda s, x: x * (2 if x.shape[0] == 0 else 1)), 0, 3, 8, 9)


HELD: dict[str, tuple[Callable[..., Any], tuple[int, ...], str]] = {
    "one sample": (lambda s, x: x * (2 if x.shape[0] == 1 else 1), (1, 3, 8, 9), "axis 0 of x is 1"),
    "one row": (lambda s, x: x * (2 if x.shape[2] == 1 else 1), (2, 3, 1, 9), "axis 2 of x is 1"),
    "a square": (lambda s, x: x.mT if x.shape[2] == x.shape[3] else x * 2, (2, 3, 8, 8), "are refused"),
    "one pooled row": (
        lambda s, x: (lambda y: y * (2 if y.shape[2] == 1 else 1))(F.avg_pool2d(x, 2)),
        (2, 3, 3, 9),
        "are refused",
    ),
    "one row after another layer": (
        lambda s, x: s.conv(x) * (2 if s.conv(x).shape[2] == 1 else 1),
        (2, 3, 3, 9),
        "axis 2 of x is 3",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_not_is_held_and_told(name: str) -> None:
    forward, shape, words = HELD[name]
    program = _captured(forward, conv=nn.Conv2d(3, 4, 3))
    assert not _takes(program, *shape)
    assert _takes(program, *SHAPE)
    told = [note for note in program.notes if "are refused" in note]
    assert any(words in note for note in told)
    assert all("computes something else than what was captured" in note for note in told)
    assert program.differing


def test_a_refusal_names_the_size() -> None:
    forward = HELD["one row"][0]
    folded = rk.fold(Net(forward).eval(), noise(*SHAPE, dtype=torch.float32))
    words = r"it assumes x\.shape\[2\] != 1, and was given x\.shape\[2\] 1; fold it again"
    with pytest.raises(ValueError, match=words):
        folded.module(noise(2, 3, 1, 9, dtype=torch.float32))


def test_what_no_condition_speaks_of_fixes_the_size() -> None:
    """Where sizes are plain numbers the network asks, and where they are symbols it does not."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return x * 2 if type(x.shape[0]) is int and x.shape[0] == 1 and x.shape[2] != 8 else x

    program = _captured(forward)
    for shape in [(1, 3, 7, 9), (1, 3, 1, 1), (1, 3, 9, 9)]:
        assert not _takes(program, *shape)
    assert _takes(program, *SHAPE)


def test_what_one_point_shows_another_may_deny() -> None:
    """One sample alone makes no difference, and one row alone makes none."""

    def forward(s: Any, x: Tensor) -> Tensor:
        sizes = x.shape[0], x.shape[2]
        return x * 2 if type(sizes[0]) is int and sizes == (1, 1) else x

    program = _captured(forward)
    assert not _takes(program, 1, 3, 1, 9)
    assert _takes(program, *SHAPE)
    assert any("axis 0 of x is 1 and axis 1 of x is 1 and" in note for note in program.notes)


def test_where_the_network_cannot_be_compared_nothing_is_dropped() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return x * (2 if torch.compiler.is_exporting() else 1)

    program = _captured(forward)
    assert program.captured_otherwise == "mul with other arguments"
    assert program.witness is None
    assert any("(mul with other arguments), so that nothing can be shown" in n for n in program.notes)
    for shape in [(1, 3, 8, 9), (2, 3, 1, 9), (0, 3, 8, 9)]:
        assert not _takes(program, *shape)


def test_what_the_network_refuses_is_not_told() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        assert x.shape[2] > 1
        return s.conv(x)

    program = _captured(forward, conv=nn.Conv2d(3, 4, 3, padding=1))
    assert program.notes == []
    assert not _takes(program, 2, 3, 1, 9)


def test_a_condition_that_leaves_out_more_than_a_size_is_never_dropped() -> None:
    program = _captured(lambda s, x: x * (2 if x.shape[2] > 100 and x.shape[3] > 100 else 1))
    assert not _takes(program, 2, 3, 101, 9)
    assert _takes(program, 2, 3, 100, 900)


def test_two_inputs() -> None:
    net = PairNet(lambda s, x, y: x.sum((1, 2, 3)) * y.sum(1) * (2 if y.shape[1] == 1 else 1)).eval()
    program = capture(net, (noise(*SHAPE), noise(2, 5)), dynamic="auto")
    assert program.takes((noise(1, 3, 1, 9), noise(1, 5)), {})
    assert not program.takes((noise(*SHAPE), noise(2, 1)), {})
    assert any("axis 1 of y is 1" in note for note in program.notes)
