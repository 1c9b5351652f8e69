"""Maps per channel above a cut go into what reads the pieces, each piece's channels into its own readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import PairNet, assert_same, fold, nodes_of, noise, randomised

PARTS: dict[str, nn.Module] = {
    "norm": nn.BatchNorm2d(9),
    "a": nn.Conv2d(5, 4, 1),
    "b": nn.Conv2d(4, 3, 3),
    "c": nn.Conv2d(3, 3, 1),
}


def _left(forward: Callable[..., Any], x: Tensor, dynamic: Any = False, **parts: nn.Module) -> list[str]:
    """The operators that are left, layers aside."""
    net = randomised(PairNet(lambda m, x, y: forward(m, x), **(PARTS | parts)))
    done = fold(net, x, noise(1), dynamic=dynamic)
    assert_same(done.original(x, noise(1)), done.module(x, noise(1)))
    calls = [n for n in nodes_of(done.module) if n.op == "call_function"]
    return [str(n.target).split(".")[1] for n in calls if "getitem" not in str(n.target)]


X = noise(2, 9, 6, 7)


@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize(
    ("cut", "kind"),
    [
        (lambda x: x.split([5, 4], 1), "split_with_sizes"),
        (lambda x: torch.split(x, 5, -3), "split"),
        (lambda x: x.chunk(2, 1), "chunk"),
        (lambda x: x.tensor_split([5], 1), "slice"),
    ],
    ids=["split_with_sizes", "split", "chunk", "tensor_split"],
)
def test_a_norm_above_a_cut(cut: Callable[[Tensor], Any], kind: str, dynamic: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, other = cut(m.norm(x.relu()))
        return m.a(one), m.b(other)

    left = _left(forward, X, dynamic)
    if kind == "slice":
        assert "batch_norm" in left  # what is not understood stays
    else:
        assert left == ["relu", kind]


def test_pieces_of_unequal_length() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two, three = m.norm(x.relu()).chunk(3, 1)
        first, last = m.norm(x.relu()).split(5, 1)
        return m.c(one), m.c(two), m.c(three), m.a(first), m.b(last)

    assert _left(forward, X) == ["relu", "chunk", "split"]


def test_a_layer_norm_above_q_and_k() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        q, k = m.norm(x).chunk(2, -1)
        return m.a(q), m.b(k)

    parts = {"norm": nn.LayerNorm(8), "a": nn.Linear(4, 3), "b": nn.Linear(4, 6)}
    assert _left(forward, noise(2, 7, 8), **parts) == ["layer_norm", "chunk"]


def test_along_another_axis_every_piece_has_all_channels() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, other = m.norm(x.relu()).chunk(2, 2)
        return m.a(one), m.a(other)

    assert _left(forward, X, a=nn.Conv2d(9, 2, 1)) == ["relu", "chunk"]


def test_unbound_along_another_axis() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, other, *_ = m.norm(x.relu()).unbind(2)
        return m.a(one), m.a(other)

    assert _left(forward, X, a=nn.Conv1d(9, 2, 1)) == ["relu", "unbind"]


def test_unbound_along_the_channels_it_stays() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, *_ = m.norm(x.relu()).unbind(1)
        return one.exp()

    assert _left(forward, X) == ["relu", "batch_norm", "unbind", "exp"]


def test_before_a_padded_layer_it_stays() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, other = m.norm(x.relu()).split(5, 1)
        return m.a(one), m.b(other)

    assert "batch_norm" in _left(forward, X, b=nn.Conv2d(4, 3, 3, padding=1))


def test_the_pieces_themselves_as_outputs() -> None:
    assert _left(lambda m, x: m.norm(x.relu()).split(5, 1), X) == ["relu", "batch_norm", "split"]
