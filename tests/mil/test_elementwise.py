"""Activations, functions of one and of two numbers, against torch and NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reparamkit.mil.evaluate import evaluate
from tests.mil.programs import Case, array, assert_agree, mb, normal, read

ALPHA, BETA = array(4), np.abs(array(4, seed=2)) + np.float32(0.5)


def _channels(values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(values).double().reshape(1, -1, 1, 1)


def test_activations() -> None:
    x = torch.cat([normal(1, 4, 3, 5) * 3, torch.zeros(1, 4, 3, 1).expand(1, 4, 3, 5)])
    assert_agree(
        [
            Case("relu", lambda x: mb.relu(x=x), lambda x: F.relu(x)),
            Case("relu6", lambda x: mb.relu6(x=x), lambda x: F.relu6(x)),
            Case("leaky", lambda x: mb.leaky_relu(x=x, alpha=0.25), lambda x: F.leaky_relu(x, 0.25)),
            Case(
                "prelu",
                lambda x: mb.prelu(x=x, alpha=ALPHA),
                lambda x: F.prelu(x, torch.from_numpy(ALPHA).double()),
            ),
            Case("elu", lambda x: mb.elu(x=x, alpha=1.5), lambda x: F.elu(x, 1.5)),
            Case("gelu", lambda x: mb.gelu(x=x), lambda x: F.gelu(x)),
            Case(
                "gelu, tanh",
                lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
                lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            ),
            Case(
                "gelu, sigmoid",
                lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
                lambda x: x / (1 + torch.exp(-1.702 * x)),
            ),
            Case("sigmoid", lambda x: mb.sigmoid(x=x), lambda x: 1 / (1 + torch.exp(-x))),
            Case("silu", lambda x: mb.silu(x=x), lambda x: x / (1 + torch.exp(-x))),
            Case(
                "sigmoid_hard",
                lambda x: mb.sigmoid_hard(x=x, alpha=0.25, beta=0.5),
                lambda x: np.clip(0.25 * x.numpy() + 0.5, 0, 1),
            ),
            Case("softplus", lambda x: mb.softplus(x=x), lambda x: np.log1p(np.exp(x.numpy()))),
            Case(
                "softplus_parametric",
                lambda x: mb.softplus_parametric(x=x, alpha=ALPHA, beta=BETA),
                lambda x: _channels(ALPHA) * torch.log1p(torch.exp(_channels(BETA) * x)),
            ),
            Case("softsign", lambda x: mb.softsign(x=x), lambda x: x / (1 + x.abs())),
            Case(
                "scaled_tanh",
                lambda x: mb.scaled_tanh(x=x, alpha=1.5, beta=0.25),
                lambda x: 1.5 * torch.tanh(0.25 * x),
            ),
            Case("tanh", lambda x: mb.tanh(x=x), lambda x: np.tanh(x.numpy())),
            Case(
                "clamped_relu",
                lambda x: mb.clamped_relu(x=x, alpha=0.5, beta=2.0),
                lambda x: np.minimum(2.0, np.where(x >= 0, x, 0.5 * x)),
            ),
            Case(
                "clamped_relu, alpha negative",
                lambda x: mb.clamped_relu(x=x, alpha=-1.0, beta=2.0),
                lambda x: np.minimum(2.0, np.abs(x.numpy())),
            ),
            Case(
                "thresholded_relu",
                lambda x: mb.thresholded_relu(x=x, alpha=0.75),
                lambda x: F.threshold(x, 0.75, 0.0),
            ),
            Case(
                "linear_activation",
                lambda x: mb.linear_activation(x=x, alpha=0.75, beta=-0.5),
                lambda x: 0.75 * x - 0.5,
            ),
            Case("softmax", lambda x: mb.softmax(x=x), lambda x: torch.softmax(x, -1)),
            Case("softmax, axis", lambda x: mb.softmax(x=x, axis=1), lambda x: torch.softmax(x, 1)),
            Case(
                "clip", lambda x: mb.clip(x=x, alpha=-0.5, beta=1.5), lambda x: np.clip(x.numpy(), -0.5, 1.5)
            ),
            Case("threshold", lambda x: mb.threshold(x=x, alpha=0.5), lambda x: np.maximum(x.numpy(), 0.5)),
        ],
        {"x": x},
    )


UNARY: list[tuple[str, Callable[[Any], Any], bool]] = [
    ("abs", np.abs, False),
    ("acos", np.arccos, True),
    ("asin", np.arcsin, True),
    ("atan", np.arctan, False),
    ("atanh", np.arctanh, True),
    ("ceil", np.ceil, False),
    ("cos", np.cos, False),
    ("cosh", np.cosh, False),
    ("erf", np.vectorize(math.erf), False),
    ("exp", np.exp, False),
    ("exp2", np.exp2, False),
    ("floor", np.floor, False),
    ("round", np.round, False),
    ("sign", np.sign, False),
    ("sin", np.sin, False),
    ("sinh", np.sinh, False),
    ("square", np.square, False),
    ("tan", np.tan, True),
]


def test_functions_of_one_number() -> None:
    inside = normal(3, 7).clamp(-0.95, 0.95)
    for narrow in (False, True):
        assert_agree(
            [
                Case(
                    name,
                    lambda x, name=name: getattr(mb, name)(x=x),
                    lambda x, function=function: function(x.numpy()),
                )
                for name, function, bounded in UNARY
                if bounded == narrow
            ],
            {
                "x": inside
                if narrow
                else torch.cat([normal(3, 7) * 2, torch.tensor([[-1.5, -0.5, 0, 0.5, 1, 1.5, 2.5]])])
            },
        )


def test_functions_with_an_epsilon() -> None:
    small, tiny = float(np.float32(1e-4)), float(np.float32(1e-12))
    assert_agree(
        [
            Case("inverse", lambda x: mb.inverse(x=x), lambda x: 1 / (x + small)),
            Case("inverse, epsilon", lambda x: mb.inverse(x=x, epsilon=0.25), lambda x: 1 / (x + 0.25)),
            Case("log", lambda x: mb.log(x=x), lambda x: np.log(x.numpy())),
            Case("log, epsilon", lambda x: mb.log(x=x, epsilon=0.5), lambda x: np.log(x.numpy() + 0.5)),
            Case("rsqrt", lambda x: mb.rsqrt(x=x), lambda x: (x + tiny) ** -0.5),
            Case("rsqrt, epsilon", lambda x: mb.rsqrt(x=x, epsilon=0.125), lambda x: (x + 0.125) ** -0.5),
            Case("sqrt", lambda x: mb.sqrt(x=x), lambda x: x**0.5),
        ],
        {"x": normal(5, 6).abs() + 0.01},
    )


BINARY: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("add", np.add),
    ("sub", np.subtract),
    ("mul", np.multiply),
    ("real_div", np.divide),
    ("maximum", np.maximum),
    ("minimum", np.minimum),
    ("floor_div", np.floor_divide),
    ("mod", np.mod),
    ("equal", np.equal),
    ("not_equal", np.not_equal),
    ("less", np.less),
    ("less_equal", np.less_equal),
    ("greater", np.greater),
    ("greater_equal", np.greater_equal),
]


def _binary(name: str, function: Callable[[Any, Any], Any]) -> Case:
    return Case(name, lambda x, y: getattr(mb, name)(x=x, y=y), lambda x, y: function(x.numpy(), y.numpy()))


def test_functions_of_two_numbers() -> None:
    x, y = normal(2, 3, 4), normal(3, 1, seed=7)
    y[0] = x[0, 0, 0]
    assert_agree([_binary(*each) for each in BINARY], {"x": x, "y": y})
    power = Case("pow", lambda x, y: mb.pow(x=x, y=y), lambda x, y: x**y)
    assert_agree([power], {"x": x.abs() + 0.1, "y": y})


def test_functions_of_two_integers() -> None:
    whole = [each for each in BINARY if each[0] != "real_div"]
    x = torch.tensor([[7, -7, 6], [0, 3, -3]], dtype=torch.int32)
    assert_agree(
        [_binary(*each) for each in whole], {"x": x, "y": torch.tensor([2, -4, 3], dtype=torch.int32)}
    )


def test_logic_and_selection() -> None:
    x, y = normal(2, 3, 4), normal(4, seed=3)

    def flags(x: Any, y: Any) -> tuple[Any, Any]:
        return mb.greater(x=x, y=0.0), mb.less(x=y, y=0.25)

    def known(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, Any]:
        return x.numpy() > 0, y.numpy() < 0.25

    cases = [
        Case(
            name,
            lambda x, y, name=name: getattr(mb, name)(x=flags(x, y)[0], y=flags(x, y)[1]),
            lambda x, y, function=function: function(*known(x, y)),
        )
        for name, function in (
            ("logical_and", np.logical_and),
            ("logical_or", np.logical_or),
            ("logical_xor", np.logical_xor),
        )
    ]
    cases.append(Case("not", lambda x, y: mb.logical_not(x=flags(x, y)[0]), lambda x, y: ~known(x, y)[0]))
    cases.append(
        Case(
            "select",
            lambda x, y: mb.select(cond=flags(x, y)[0], a=x, b=y),
            lambda x, y: np.where(known(x, y)[0], x.numpy(), y.numpy()),
        )
    )
    assert_agree(cases, {"x": x, "y": y})


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("name", ["elu", "softplus", "gelu", "log", "sqrt"])
def test_gradients_are_numbers_where_the_other_branch_would_overflow(name: str) -> None:
    settings = {"alpha": 1.0} if name == "elu" else {}
    x = torch.tensor([[1e-3, 3.0, 900.0]])
    program = read(lambda x: getattr(mb, name)(x=x, **settings), {"x": x})
    moved = x.double().requires_grad_()
    (y,) = evaluate(program, {"x": moved}, torch.float64).values()
    (gradient,) = torch.autograd.grad(y.sum(), moved)
    assert torch.isfinite(gradient).all()
