"""A copy is there for a reason: what the network or its caller writes to later must not show through.

Every test here compares two runs in a row as well, so that state left behind shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import Folded, Net, fold, noise

COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": lambda t: t.clone(),
    "to_copy": lambda t: t.to(t.dtype, copy=True),
    "times_one": lambda t: t * 1,
    "plus_zero": lambda t: t + 0,
    "there_and_back": lambda t: t * 2 * 0.5,
}
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda t: t,
    "flatten": lambda t: t.flatten(),
    "transpose": lambda t: t.transpose(0, 1),
    "slice": lambda t: t[1:],
}


def _assert_same_twice(done: Folded, x: Tensor) -> None:
    done.compare(x)
    done.compare(x)
    for name, buffer in done.module.named_buffers():
        assert torch.equal(buffer, done.original.get_buffer(name)), name


@pytest.mark.diagonal
@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("seen", VIEWS)
def test_a_copy_of_a_buffer_keeps_the_value_from_before_the_buffer_changed(copied: str, seen: str) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        before = VIEWS[seen](COPIES[copied](self.state))
        self.state.add_(1)
        return before, x.relu()

    net = Net(forward, state=noise(2, 3))
    _assert_same_twice(fold(net, noise(2, 3, seed=1)), noise(2, 3, seed=1))


@pytest.mark.diagonal
@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("seen", VIEWS)
def test_a_copy_of_an_input_keeps_the_value_from_before_the_input_changed(copied: str, seen: str) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        before = VIEWS[seen](COPIES[copied](x))
        x.add_(1)
        return before

    _assert_same_twice(fold(Net(forward), noise(4, 3)), noise(4, 3))


@pytest.mark.diagonal
@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("seen", VIEWS)
def test_an_output_that_was_a_copy_of_the_input_shares_no_memory_with_it(copied: str, seen: str) -> None:
    """Whoever calls the network may write into its output."""
    x = noise(4, 3)
    done = fold(Net(lambda self, x: VIEWS[seen](COPIES[copied](x))), x)
    y = done.module(x)
    assert torch.equal(y, done.original(x))
    shared = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert not shared


def test_two_buffers_that_change_places() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        kept = self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(kept)
        return x + self.a - 2 * self.b

    _assert_same_twice(fold(Net(forward, a=noise(3), b=noise(3, seed=1)), noise(2, 3)), noise(2, 3))


def test_a_shift_register_of_past_inputs() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        past = self.past.clone()
        self.past.copy_(x)
        return self.conv(torch.cat([past, x], 1)) + past.clone().flatten(1).sum()

    net = Net(forward, past=noise(1, 2, 4, 4), conv=nn.Conv2d(4, 3, 3))
    _assert_same_twice(fold(net, noise(1, 2, 4, 4, seed=1)), noise(1, 2, 4, 4, seed=2))
