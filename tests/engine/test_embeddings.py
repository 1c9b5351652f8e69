"""Maps behind a table of embeddings go into the table, and zeros that are added go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.engine.laws.left import Parts, left
from tests.nets import Net, assert_same, noise, randomised

PLACES = torch.arange(10).view(2, 5) % 9
TOKENS = noise(2, 5, 6)


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


ONE: dict[str, Callable[[Any, Tensor], Any]] = {
    "LoRA": lambda s, i: s.e(i) + F.embedding(i, s.a.t()) @ s.b.t() * 0.5,
    "a scale and a shift": lambda s, i: s.e(i) * s.w + s.w,
    "a number": lambda s, i: s.e(i) * 2.0 - 1.0,
    "a linear layer": lambda s, i: s.square(s.e(i)),
    "two tables": lambda s, i: s.e(i) - s.other(i),
    "beside each other": lambda s, i: torch.cat([s.e(i), s.other(i) * 2.0], -1),
    "a piece": lambda s, i: (lambda a, b: (a * 2.0).exp() + b.exp())(*s.e(i).chunk(2, -1)),
    "a padding index": lambda s, i: s.padded(i) * 2.0 + 1.0,
}


@pytest.mark.diagonal
@pytest.mark.parametrize("places", [PLACES, PLACES[0], PLACES.int(), PLACES[:, :, None]])
@pytest.mark.parametrize("name", ONE)
def test_one_table(name: str, places: Tensor) -> None:
    parts: Parts = {
        "e": nn.Embedding(9, 8),
        "other": nn.Embedding(9, 8),
        "padded": nn.Embedding(9, 8, padding_idx=0),
        "a": _weight(2, 9),
        "b": _weight(8, 2),
        "w": _weight(8),
        "square": nn.Linear(8, 8),
    }
    kept = left(lambda s, i: ONE[name](s, i).relu(), places, **parts)
    assert {n: c for n, c in kept.items() if n not in ("exp", "add", "relu")} == {"embedding": 1}
    assert kept.get("add", 0) == (name == "a piece")


def test_a_single_place() -> None:
    kept = left(lambda s, i: (s.e(i) * 2.0).relu(), PLACES[0, 0], e=nn.Embedding(9, 8))
    assert kept == {"embedding": 1, "relu": 1}


def test_every_row_at_other_sizes() -> None:
    net = Net(lambda s, i: (s.e(i) * 2.0 + s.other(i)).relu(), e=nn.Embedding(9, 8), other=nn.Embedding(9, 8))
    net = randomised(net.double())
    outcome = fold_program(capture(net, (PLACES,), dynamic="auto"))
    (table,) = (m for m in outcome.module.modules() if isinstance(m, nn.Embedding))
    assert (table.num_embeddings, table.embedding_dim) == (9, 8)
    rows = torch.arange(9).view(3, 3)
    assert_same(net(rows), outcome.module(rows))


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (
            lambda s, i: F.linear((s.large(i) * 2.0).relu(), s.large.weight),
            {"embedding": 1, "mul": 1, "relu": 1, "linear": 1},
        ),
        (lambda s, i: s.wide(s.large(i)).relu(), {"embedding": 1, "linear": 1, "relu": 1}),
        (lambda s, i: s.large(i).relu() + s.large(i) * 2.0, {"embedding": 1, "mul": 1, "relu": 1, "add": 1}),
        (lambda s, i: (s.e(i) + s.longer(i)).relu(), {"embedding": 2, "add": 1, "relu": 1}),
        (lambda s, i: (s.e(i) + s.e(i + 1)).relu(), {"embedding": 2, "add": 2, "relu": 1}),
        (lambda s, i: s.e(i).relu() * 2.0, {"embedding": 1, "mul": 1, "relu": 1}),
    ],
    ids=["a tied head", "a larger table", "another reader", "other rows", "other places", "an activation"],
)
def test_the_table_stays(forward: Callable[..., Any], expected: dict[str, int]) -> None:
    parts = {
        "e": nn.Embedding(12, 8),
        "large": nn.Embedding(9000, 8),
        "longer": nn.Embedding(15, 8),
        "wide": nn.Linear(8, 64),
    }
    assert left(forward, PLACES, **parts) == expected


def test_a_table_that_is_renormalised_when_it_is_read_stays() -> None:
    net = randomised(Net(lambda s, i: (s.e(i) * 2.0).relu(), e=nn.Embedding(9, 8, max_norm=1.0)).double())
    outcome = fold_program(capture(net, (PLACES,), dynamic=False))
    assert not [m for m in outcome.module.modules() if isinstance(m, nn.Embedding)]
    assert_same(net(PLACES), outcome.module(PLACES))


ZEROS: dict[str, Callable[[Any, Tensor], Any]] = {
    "zeros_like": lambda s, x: s.a(x) + torch.zeros_like(x) + s.b(x),
    "of another value": lambda s, x: s.a(x) + torch.zeros_like(x.exp()) + s.b(x),
    "subtracted": lambda s, x: torch.zeros_like(x) - s.a(x) + s.b(x),
    "new_zeros": lambda s, x: s.a(x) + x.new_zeros(x.shape) + s.b(x),
    "zeros": lambda s, x: s.a(x) + torch.zeros(x.shape, dtype=x.dtype) + s.b(x),
    "full": lambda s, x: s.a(x) + torch.full_like(x, 0.0) + s.b(x),
    "a constant": lambda s, x: s.a(x) + torch.zeros(5, 6, dtype=x.dtype) + s.b(x),
    "through a layer": lambda s, x: s.a(x) + s.bare(torch.zeros_like(x)) + s.b(x),
    "scaled": lambda s, x: s.a(x) + torch.zeros_like(x) * 3.0 + s.b(x),
}


@pytest.mark.parametrize("dynamic", [False, "batch"])
@pytest.mark.parametrize("name", ZEROS)
def test_zeros_that_are_added_go(name: str, dynamic: Any) -> None:
    parts = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "bare": nn.Linear(6, 6, bias=False)}
    assert left(ZEROS[name], TOKENS, dynamic, **parts) == {"linear": 1}


@pytest.mark.parametrize(
    "zeros",
    [
        lambda x: torch.ones_like(x),
        lambda x: torch.full_like(x, 1e-30),
        lambda x: x.exp() * 0.0,
        lambda x: torch.zeros_like(x) + 1.0,
    ],
    ids=["ones", "small", "a value times zero", "a shift"],
)
def test_what_is_no_zero_stays(zeros: Callable[[Tensor], Tensor]) -> None:
    kept = left(lambda s, x: (s.a(x) + zeros(x)).relu(), TOKENS, a=nn.Linear(6, 6))
    assert kept.get("add", 0) >= 1 or "mul" in kept


def test_zeros_alone() -> None:
    kept = left(
        lambda s, x: (torch.zeros_like(x), s.a(torch.zeros_like(x) + torch.zeros_like(x))),
        TOKENS,
        a=nn.Linear(6, 6),
    )
    assert kept["zeros_like"] >= 1


def test_a_value_times_zero_keeps_what_is_not_finite() -> None:
    net = randomised(Net(lambda s, x: s.a(x) + x.exp() * 0.0, a=nn.Linear(6, 6)).double())
    outcome = fold_program(capture(net, (TOKENS,), dynamic=False))
    large = TOKENS.clone()
    large[0, 0, 0] = 1e4
    assert torch.equal(outcome.module(large).isnan(), net(large).isnan())


def test_two_tables_of_one_size_have_numbers_of_their_own() -> None:
    def forward(s: Any, places: Tensor) -> Any:
        return (s.one(places) * 2.0).relu(), s.other(places) * 3.0

    parts = {"one": nn.Embedding(9, 8), "other": nn.Embedding(9, 8)}
    assert left(forward, PLACES, **parts) == {"embedding": 2, "relu": 1}


def test_a_norm_of_flattened_tables_goes_into_both() -> None:
    """What is written down above the flattening has another shape than the value for whose sake it is."""

    def forward(s: Any, places: Tensor) -> Tensor:
        both = torch.cat([s.one(places), s.other(places)], -1)
        tokens: Tensor = s.norm(both.flatten(0, -2)).reshape_as(both)
        return tokens.relu()

    parts = {"one": nn.Embedding(9, 3), "other": nn.Embedding(9, 2), "norm": nn.BatchNorm1d(5)}
    assert left(forward, PLACES, **parts) == {"embedding": 1, "relu": 1}
