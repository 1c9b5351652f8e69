"""What a network asks of its sizes is known, and told apart from what torch's operators ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from tests.nets import Net, noise

SHAPE = (2, 3, 6, 5)


def _captured(forward: Callable[[Any, Tensor], Any], *shape: int, **parts: nn.Module) -> Program:
    return capture(Net(forward, **parts).eval().double(), (noise(*(shape or SHAPE)),), dynamic="auto")


def _asked(program: Program) -> set[str]:
    assert program.guards is not None
    return {program.guards.spoken(text).replace("x.shape", "") for text in program.guards.asked}


ASKED: dict[str, tuple[Callable[[Any, Tensor], Any], set[str]]] = {
    "a size": (lambda s, x: x * (2 if x.shape[2] == 1 else 1), {"[2] != 1"}),
    "by a method": (lambda s, x: x * (2 if x.size(0) == 1 else 1), {"[0] != 1"}),
    "by its truth": (lambda s, x: x * (1 if x.shape[0] - 1 else 2), {"-1 + [0] != 0"}),
    "as a number": (lambda s, x: x * (1 + int(x.shape[2] == 1)), {"[2] != 1"}),
    "half a size as a number": (lambda s, x: x * int(x.shape[2] * 0.5), {"trunc(0.5 * float([2])) == 3"}),
    "the place in a list": (lambda s, x: x * [1, 2, 3, 4][x.shape[2] // 2], {"[2] // 2 == 3"}),
    "its whole shape": (lambda s, x: x * (2 if x.shape == (4, 3, 1, 1) else 1), {"[0] != 4"}),
    "all": (lambda s, x: x * (2 if 1 in x.shape else 1), {f"[{axis}] != 1" for axis in range(4)}),
    "the first of two": (lambda s, x: x * (2 if x.shape[2] == 1 and x.shape[3] == 7 else 1), {"[2] != 1"}),
    "with the answer yes": (lambda s, x: x * (2 if x.shape[2] > 3 else 1), {"[2] > 3"}),
    "equality": (lambda s, x: x.mT if x.shape[2] == x.shape[3] else x * 2, {"[2] != [3]"}),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_the_network_asks(name: str) -> None:
    forward, texts = ASKED[name]
    assert _asked(_captured(forward)) == texts


NOT_ASKED: dict[str, Callable[[Any, Tensor], Any]] = {
    "a convolution": lambda s, x: s.conv(x),
    "a matrix product": lambda s, x: x @ x.mT,
    "reshaping": lambda s, x: x.reshape(x.shape[0], -1).contiguous(),
    "attention": lambda s, x: F.scaled_dot_product_attention(x, x, x),
    "interpolation": lambda s, x: F.interpolate(x, scale_factor=2.0),
    "squeezing": lambda s, x: x.squeeze(),
    "the larger": lambda s, x: x * max(x.shape[2], 3),  # captured as it stands
    "an assertion by torch": lambda s, x: (torch._check(x.shape[2] >= 2), x * 2)[1],
}


@pytest.mark.parametrize("name", NOT_ASKED)
def test_what_torch_asks_is_none_of_it(name: str) -> None:
    program = _captured(NOT_ASKED[name], conv=nn.Conv2d(3, 4, 3, padding=1))
    assert not _asked(program)


def test_what_is_asked_stays_although_it_makes_no_difference() -> None:
    """At the widths that are tried it makes none; what else is asked there, nobody knows."""
    program = _captured(lambda s, x: x * (2 if x.shape[2] == 1 and x.shape[3] == 7 else 1))
    assert not program.takes((noise(2, 3, 1, 5),), {})
    assert program.takes((noise(1, 3, 6, 1),), {})
    free = _captured(lambda s, x: x * 2)
    assert free.takes((noise(1, 3, 1, 1),), {})


def test_the_sizes_of_a_batch_of_one_that_is_asked_for_are_the_examples() -> None:
    program = _captured(lambda s, x: x * (2 if x.shape[0] == 1 else 1), 1, 3, 6, 5)
    assert program.sizes == "free spatial sizes"
    assert program.takes((noise(1, 3, 4, 4),), {})
    assert not program.takes((noise(2, 3, 6, 5),), {})


def test_symbols_answer_as_before_afterwards() -> None:
    before = torch.SymBool.__bool__, torch.SymBool.__int__, torch.SymFloat.__bool__
    _captured(lambda s, x: x * 2)
    assert (torch.SymBool.__bool__, torch.SymBool.__int__, torch.SymFloat.__bool__) == before
    with pytest.raises(Exception, match=r"data-dependent|captured"):
        _captured(lambda s, x: x * 2 if x.sum() > 0 else x)
    assert (torch.SymBool.__bool__, torch.SymBool.__int__, torch.SymFloat.__bool__) == before
