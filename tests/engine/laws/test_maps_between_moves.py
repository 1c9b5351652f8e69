"""Q ∘ A ∘ P = A' where Q and P undo each other: layers spelt between views are layers of the value itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.laws.left import Parts, left
from tests.nets import noise

TOKENS = noise(2, 5, 6)


class Conv1D(nn.Module):
    """transformers' layer of GPT-2."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(
            (*x.size()[:-1], self.outputs)
        )


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def _mm(s: Any, x: Tensor) -> Tensor:
    return torch.mm(x.flatten(0, 1), s.w).unflatten(0, x.shape[:2])


ONE: dict[str, Callable[[Any, Tensor], Any]] = {
    "LoRA on GPT-2": lambda s, x: s.c(x) + s.up(s.down(x)) * 0.5,
    "without a bias": lambda s, x: _mm(s, x) + s.l(x),
    "matmul": lambda s, x: (x.reshape(-1, 6) @ s.w).reshape(*x.shape[:2], 8) + s.l(x),
    "the sum between": lambda s, x: (x.view(-1, 6) @ s.w + s.l(x).view(-1, 8)).view(*x.shape[:2], 8),
    "three terms between": lambda s, x: (
        x.view(-1, 6) @ s.w + s.l(x).view(-1, 8) + s.l(x.view(-1, 6)) * 2.0
    ).view(*x.shape[:2], 8),
    "maps behind one another": lambda s, x: (
        s.m(_mm(s, x).flatten(0, 1) + 1.0).unflatten(0, x.shape[:2]) + s.k(x)
    ),
    "several views": lambda s, x: (
        s.l(x.flatten(0, 1).unsqueeze(0)).squeeze(0).unflatten(0, x.shape[:2]) + s.l(x) * 2.0
    ),
    "transposed there and back": lambda s, x: s.l(x.transpose(0, 1)).transpose(0, 1) + s.l(x) * 2.0,
    "a one-tap convolution": lambda s, x: s.conv(x.transpose(1, 2)).transpose(1, 2) + s.l(x) * 2.0,
    "nothing between": lambda s, x: s.l(x.flatten(0, 1).unflatten(0, x.shape[:2])) + s.l(x) * 2.0,
}


@pytest.mark.diagonal
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("name", ONE)
def test_one_layer(name: str, dynamic: Any) -> None:
    parts: Parts = {
        "c": Conv1D(8, 6),
        "down": nn.Linear(6, 2, bias=False),
        "up": nn.Linear(2, 8, bias=False),
        "w": _weight(6, 8),
        "l": nn.Linear(6, 8),
        "m": nn.Linear(8, 6),
        "k": nn.Linear(6, 6),
        "conv": nn.Conv1d(6, 8, 1),
    }
    kept = left(ONE[name], TOKENS, dynamic, **parts)
    assert {n: c for n, c in kept.items() if n not in ("unsqueeze", "squeeze", "unflatten")} == {"linear": 1}


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_pieces_of_the_sum(dynamic: Any) -> None:
    def forward(s: Any, x: Tensor) -> Any:
        q, k, v = (s.c(x) + s.l(x)).split(4, -1)
        return (q * 0.5) @ k.transpose(1, 2) @ v.exp()

    kept = left(forward, TOKENS, dynamic, c=Conv1D(12, 6), l=nn.Linear(6, 12, bias=False))
    assert kept == {"linear": 1, "matmul": 2, "exp": 1}


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: (x.transpose(0, 1).reshape(-1, 6) @ s.w).view(2, 5, 8) + s.l(x),
        lambda s, x: (x.view(5, 2, 6).transpose(0, 1).reshape(-1, 6) @ s.w).view(2, 5, 8) + s.l(x),
        lambda s, x: (x.reshape(-1, 6) @ s.w).view(5, 2, 8).transpose(0, 1) + s.l(x),
        lambda s, x: (x.reshape(-1, 6) @ s.w).view(2, 8, 5).transpose(1, 2) + s.l(x),
        lambda s, x: (x.reshape(-1, 6) @ s.w).relu().view(2, 5, 8) + s.l(x),
        lambda s, x: s.conv(x.transpose(1, 2)).transpose(1, 2) + s.l(x),
        lambda s, x: (x.reshape(-1, 6).mean(0, keepdim=True).expand(10, 6) @ s.w).view(2, 5, 8) + s.l(x),
    ],
    ids=[
        "other places",
        "other places of one shape",
        "other places behind",
        "other channels",
        "an activation between",
        "a window between",
        "a mean between",
    ],
)
def test_two_layers(forward: Callable[..., Any]) -> None:
    conv = nn.Conv1d(6, 8, 3, padding=1)
    kept = left(forward, TOKENS, w=_weight(6, 8), l=nn.Linear(6, 8), conv=conv)
    assert sum(kept.get(name, 0) for name in ("linear", "matmul", "conv1d")) == 2


def test_a_square_is_not_taken_for_itself_turned() -> None:
    x = noise(4, 4, 6)
    kept = left(lambda s, x: s.l(x.transpose(0, 1)) + s.l(x), x, l=nn.Linear(6, 8))
    assert kept == {"linear": 2, "add": 1}


def test_a_layer_with_another_reader_is_not_computed_twice() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        y = x.view(-1, 6) @ s.w
        return y.exp(), y.view(2, 5, 8) + x.sum()

    assert left(forward, TOKENS, w=_weight(6, 8))["matmul"] == 1
