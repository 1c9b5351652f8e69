"""einsum, bmm and matmul with a constant: matrices over an axis; with two values: products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.operators import Affine, Contraction
from tests.engine.laws.left import Parts, left
from tests.nets import noise
from tests.operators.reading import evaluated, read

TOKENS = noise(2, 5, 6)
MATRICES: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("bnc,co->bno", (2, 5, 6), (6, 8)),
    ("bnc,oc->bno", (2, 5, 6), (8, 6)),
    ("bchw,kc->bkhw", (2, 4, 6, 8), (5, 4)),
    ("bchw,ck->bkhw", (2, 4, 6, 8), (4, 5)),
    ("bcl, ck -> bkl", (2, 4, 6), (4, 5)),
    ("...c,co->...o", (2, 5, 6), (6, 8)),
    ("b...c,co->b...o", (2, 3, 5, 6), (6, 8)),
    ("bchw,c->bchw", (2, 4, 5, 6), (4,)),
    ("...c,c->...c", (2, 5, 6), (6,)),
    ("bnd,on->bod", (2, 5, 6), (7, 5)),
    ("bcdhw,kc->bkdhw", (2, 4, 2, 3, 3), (5, 4)),
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("equation", "shape", "matrix"), MATRICES)
def test_a_matrix_over_one_axis(
    equation: str, shape: tuple[int, ...], matrix: tuple[int, ...], first: bool
) -> None:
    weight, x = noise(*matrix, seed=3), noise(*shape)
    terms, _, result = equation.partition("->")
    if not first:
        equation = ",".join(reversed(terms.split(","))) + "->" + result

    def function(s: Any, x: Tensor) -> Tensor:
        return torch.einsum(equation, *((x, s.w) if first else (s.w, x)))

    node = read(function, x, "einsum", w=weight)
    assert isinstance(node.meaning, Affine), node.reason
    other = noise(*shape, seed=9)
    holder = nn.Module()
    holder.w = weight
    torch.testing.assert_close(evaluated(node, other), function(holder, other))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bnc,cc->bnc", ((2, 5, 6), (6, 6))),
        ("bnn,no->bno", ((2, 5, 5), (5, 3))),
        ("bnc,co", ((2, 5, 6), (6, 8))),
        ("bnc,bco->bno", ((2, 5, 6), (1, 6, 8))),
    ],
)
def test_what_is_none_is_left_and_named(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    node = read(lambda s, x: torch.einsum(equation, x, s.w), noise(*shapes[0]), "einsum", w=noise(*shapes[1]))
    assert node.meaning is None
    assert node.notable
    assert "its" in node.reason


def _einsum(equation: str) -> Callable[..., Any]:
    return lambda s, x: torch.einsum(equation, x, s.w)


@pytest.mark.parametrize(
    ("function", "operator", "shapes"),
    [
        (_einsum("bnc,co->bon"), "einsum", ((2, 5, 6), (6, 8))),
        (_einsum("bnc,bco->bno"), "einsum", ((2, 5, 6), (2, 6, 8))),
        (_einsum("bn,bn->bn"), "einsum", ((2, 5), (2, 5))),
        (_einsum("bnc,c->bn"), "einsum", ((2, 5, 6), (6,))),
        (_einsum("bnc,o->bnco"), "einsum", ((2, 5, 6), (3,))),
        (_einsum("bhnc,nm->bhmc"), "einsum", ((2, 3, 5, 6), (5, 7))),
        (_einsum("nc,nm->mc"), "einsum", ((5, 6), (5, 7))),
        (_einsum("bnc,c->bcn"), "einsum", ((2, 5, 6), (6,))),
        (_einsum("...rk,rkc->...rc"), "einsum", ((2, 3, 5, 6), (5, 6, 4))),
        (_einsum("bnc,co->b"), "einsum", ((2, 5, 6), (6, 8))),
        (lambda s, x: torch.bmm(x, s.w), "bmm", ((2, 5, 6), (2, 6, 3))),
        (lambda s, x: torch.bmm(s.w, x), "bmm", ((2, 5, 6), (2, 3, 5))),
        (lambda s, x: x @ s.w, "matmul", ((2, 4, 5, 6), (4, 6, 3))),
        (lambda s, x: x @ s.w, "matmul", ((2, 4, 5, 6), (2, 1, 6, 3))),
        (lambda s, x: s.w @ x, "matmul", ((2, 4, 5, 6), (4, 3, 5))),
        (lambda s, x: x.sum(-2), "sum", ((2, 4, 5), (1,))),
        (lambda s, x: x.sum((1, -1), keepdim=True), "sum", ((2, 4, 5), (1,))),
    ],
)
def test_contractions(
    function: Callable[..., Any], operator: str, shapes: tuple[tuple[int, ...], ...]
) -> None:
    """What a reader says acts along axes gives what torch gives, whatever lies along the others."""
    x, holder = noise(*shapes[0]), nn.Module()
    holder.w = noise(*shapes[1], seed=3)
    contraction = read(function, x, operator, w=holder.w).meaning
    assert isinstance(contraction, Contraction)
    whole = function(holder, x)
    assert contraction.sizes == tuple(whole.shape)
    torch.testing.assert_close(contraction.apply(x[None])[0], whole)
    assert operator == "sum" or contraction.reason
    for axis in range(x.ndim):
        one = x.narrow(axis, 1, 1)
        if axis in contraction.axes:
            assert axis not in contraction.places
        else:
            place = contraction.places.index(axis)
            torch.testing.assert_close(contraction.apply(one[None])[0], whole.narrow(place, 1, 1))
    torch.testing.assert_close(contraction.apply(torch.stack([x, -x]))[1], -whole)


@pytest.mark.parametrize(
    ("function", "operator", "shape"),
    [
        (lambda s, x: torch.bmm(x, s.w), "bmm", (1, 6, 8)),
        (lambda s, x: x @ s.w, "matmul", (1, 6, 8)),
        (lambda s, x: s.w @ x, "matmul", (7, 5)),
    ],
)
def test_matrices_in_front_and_behind(
    function: Callable[..., Any], operator: str, shape: tuple[int, ...]
) -> None:
    x = noise(1, 5, 6)
    node = read(function, x, operator, w=noise(*shape, seed=3))
    holder = nn.Module()
    holder.w = noise(*shape, seed=3)
    torch.testing.assert_close(evaluated(node, x), function(holder, x))


@pytest.mark.parametrize(
    ("function", "operator", "reason"),
    [
        (lambda s, x: torch.bmm(x, x), "bmm", "its right-hand matrix depends on the network's input"),
        (lambda s, x: torch.baddbmm(s.w, x, x), "baddbmm", "it multiplies two values that both depend"),
        (lambda s, x: torch.baddbmm(x, s.w, s.w), "baddbmm", "its matrices differ from sample to sample"),
        (
            lambda s, x: torch.einsum("bij,bjk->bik", x, x),
            "einsum",
            "it multiplies two values that both depend",
        ),
        (lambda s, x: torch.einsum("bij,bjk,bkl->bil", x, x, s.w), "einsum", "it multiplies two values"),
        (lambda s, x: torch.einsum("bij->bji", x), "einsum", "it is no product of a value and a constant"),
    ],
)
def test_a_refusal_names_the_operator(function: Callable[..., Any], operator: str, reason: str) -> None:
    node = read(function, noise(2, 5, 5), operator, w=noise(2, 5, 5))
    assert node.meaning is None
    assert node.notable
    assert node.reason.startswith(reason)


ONE: dict[str, Callable[[Any, Tensor], Any]] = {
    "einsum beside a linear layer": lambda s, x: torch.einsum("bnc,co->bno", x, s.w) + s.layer(x),
    "einsum beside a convolution": lambda s, x: (
        torch.einsum("bcn,co->bon", x.transpose(1, 2), s.w) + s.conv(x.transpose(1, 2))
    ),
    "a norm in front": lambda s, x: torch.einsum("bcn,co->bon", s.norm(x.transpose(1, 2)), s.w),
    "a matrix in front": lambda s, x: s.mix @ x + s.over(x),
}


@pytest.mark.parametrize("name", ONE)
def test_one_layer(name: str) -> None:
    parts: Parts = {
        "w": nn.Parameter(torch.zeros(6, 8)),
        "mix": nn.Parameter(torch.zeros(7, 5)),
        "layer": nn.Linear(6, 8),
        "conv": nn.Conv1d(6, 8, 3, padding=1),
        "over": nn.Conv1d(5, 7, 1),
        "norm": nn.BatchNorm1d(6),
    }
    kept = left(ONE[name], TOKENS, **parts)
    assert sum(kept.values()) == 1


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "einsum": lambda q, k: torch.einsum("bic,bjc->bij", q, k),
    "bmm": lambda q, k: torch.bmm(q, k.transpose(1, 2)),
    "baddbmm": lambda q, k: torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=0.5),
    "matmul": lambda q, k: q @ k.transpose(1, 2),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_factor_of_a_product_is_one_of_the_layer_above(name: str, dynamic: Any) -> None:
    """s · (q kᵀ) = (s q) kᵀ, whoever multiplies."""
    kept = left(
        lambda s, x: (PRODUCTS[name](s.q(x), s.k(x)) * 0.3).softmax(-1),
        TOKENS,
        dynamic,
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
    )
    kept.pop("new_zeros", None)
    assert kept == {"linear": 2, name: 1, "softmax": 1}


@pytest.mark.parametrize(
    "product",
    [
        lambda s, q, k: torch.baddbmm(s.w, q, k.transpose(1, 2)),
        lambda s, q, k: torch.einsum("bic,bjc,bjk->bik", q, k, k),
        lambda s, q, k: torch.einsum("bic,bjc->bij", q, q),
    ],
    ids=["something is added", "three values", "a square"],
)
def test_a_factor_stays(product: Callable[..., Tensor]) -> None:
    kept = left(
        lambda s, x: (product(s, s.q(x), s.k(x)) * 0.3).softmax(-1),
        TOKENS,
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
        w=noise(2, 5, 5),
    )
    assert kept["mul"] == 1
