"""Normalisations, reductions and order, against torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.mil.programs import Case, array, assert_agree, mb, normal

MEAN, GAMMA, BETA = array(4), array(4, seed=3), array(4, seed=4)
VARIANCE = np.abs(array(4, seed=2)) + np.float32(0.1)
FAR = float(np.float32(1e-5))


def _double(values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(values).double()


def test_norms_over_statistics() -> None:
    assert_agree(
        [
            Case(
                "batch_norm",
                lambda x: mb.batch_norm(
                    x=x, mean=MEAN, variance=VARIANCE, gamma=GAMMA, beta=BETA, epsilon=0.125
                ),
                lambda x: F.batch_norm(
                    x, _double(MEAN), _double(VARIANCE), _double(GAMMA), _double(BETA), eps=0.125
                ),
            ),
            Case(
                "batch_norm, plain",
                lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE),
                lambda x: F.batch_norm(x, _double(MEAN), _double(VARIANCE), eps=FAR),
            ),
            Case(
                "instance_norm",
                lambda x: mb.instance_norm(x=x, gamma=GAMMA, beta=BETA),
                lambda x: F.instance_norm(x, weight=_double(GAMMA), bias=_double(BETA), eps=FAR),
            ),
            Case(
                "instance_norm, plain",
                lambda x: mb.instance_norm(x=x, epsilon=0.25),
                lambda x: F.instance_norm(x, eps=0.25),
            ),
            Case("l2_norm", lambda x: mb.l2_norm(x=x, epsilon=0.5), _l2_norm),
            Case(
                "local_response_norm",
                lambda x: mb.local_response_norm(x=x, size=3, alpha=0.5, beta=0.75, k=2.0),
                lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
            ),
        ],
        {"x": normal(2, 4, 3, 5)},
    )


def _l2_norm(x: torch.Tensor) -> Any:
    flat = x.reshape(2, -1).numpy()
    return (flat / np.sqrt((flat**2).sum(1, keepdims=True) + 0.5)).reshape(x.shape)


def test_layer_norm_over_any_axes() -> None:
    gamma, beta = array(3, 5), array(3, 5, seed=5)
    first, second = array(4), array(4, seed=6)
    apart, other = array(2, 3, 5), array(2, 3, 5, seed=7)

    def by_hand(x: torch.Tensor, axes: tuple[int, ...], scale: Any, shift: Any, eps: float) -> Any:
        values = x.numpy()
        centred = values - values.mean(axes, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)
        shape = [size if axis in axes else 1 for axis, size in enumerate(values.shape)]
        return y * np.reshape(scale.astype(np.float64), shape) + np.reshape(shift.astype(np.float64), shape)

    assert_agree(
        [
            Case(
                "last",
                lambda x: mb.layer_norm(x=x, axes=[2, -1], gamma=gamma, beta=beta, epsilon=0.5),
                lambda x: F.layer_norm(x, (3, 5), _double(gamma), _double(beta), 0.5),
            ),
            Case(
                "channels",
                lambda x: mb.layer_norm(x=x, axes=[1], gamma=first, beta=second),
                lambda x: by_hand(x, (1,), first, second, FAR),
            ),
            Case(
                "axes apart",
                lambda x: mb.layer_norm(x=x, axes=[0, 2, 3], gamma=apart, beta=other),
                lambda x: by_hand(x, (0, 2, 3), apart, other, FAR),
            ),
            Case(
                "plain",
                lambda x: mb.layer_norm(x=x, axes=[-1], epsilon=0.25),
                lambda x: F.layer_norm(x, (5,), eps=0.25),
            ),
        ],
        {"x": normal(2, 4, 3, 5)},
    )


def _log_sum_exp(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


REDUCTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("reduce_sum", np.sum),
    ("reduce_mean", np.mean),
    ("reduce_prod", np.prod),
    ("reduce_max", np.max),
    ("reduce_min", np.min),
    ("reduce_l1_norm", lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims)),
    ("reduce_l2_norm", lambda x, axis, keepdims: np.sqrt(np.sum(x**2, axis=axis, keepdims=keepdims))),
    ("reduce_sum_square", lambda x, axis, keepdims: np.sum(x**2, axis=axis, keepdims=keepdims)),
    ("reduce_log_sum_exp", _log_sum_exp),
]


def _reductions(
    kinds: list[tuple[str, Callable[..., Any]]], axes: list[int] | None, keep: bool
) -> list[Case]:
    settings: dict[str, Any] = {"keep_dims": keep} | ({} if axes is None else {"axes": axes})
    where = None if axes is None else tuple(axes)
    return [
        Case(
            f"{name} over {axes}",
            lambda x, name=name: getattr(mb, name)(x=x, **settings),
            lambda x, function=function: function(x.numpy(), axis=where, keepdims=keep),
        )
        for name, function in kinds
    ]


def test_reductions() -> None:
    cases = _reductions(REDUCTIONS, [2, 3], True) + _reductions(REDUCTIONS, [-1, 0], False)
    assert_agree(cases + _reductions(REDUCTIONS, None, False), {"x": normal(2, 3, 4, 5)})
    log_sum = Case(
        "reduce_log_sum", lambda x: mb.reduce_log_sum(x=x, axes=[1]), lambda x: np.log(x.numpy().sum(1))
    )
    assert_agree([log_sum], {"x": normal(3, 4).abs() + 0.1})


def test_reductions_of_integers() -> None:
    whole = [
        each for each in REDUCTIONS if each[0] in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
    ]
    values = torch.tensor([[3, -7, 5], [2, 2, -9]], dtype=torch.int32)
    assert_agree(_reductions(whole, [1], False), {"x": values})


def test_the_place_of_the_largest() -> None:
    assert_agree(
        [
            Case("argmax", lambda x: mb.reduce_argmax(x=x), lambda x: x.numpy().argmax(-1)),
            Case(
                "argmax, kept",
                lambda x: mb.reduce_argmax(x=x, axis=1, keep_dims=True),
                lambda x: x.numpy().argmax(1)[:, None],
            ),
            Case("argmin", lambda x: mb.reduce_argmin(x=x, axis=0), lambda x: x.numpy().argmin(0)),
            Case(
                "argmin, unsigned",
                lambda x: mb.cast(x=mb.reduce_argmin(x=x, axis=0, output_dtype="uint16"), dtype="int32"),
                lambda x: x.numpy().argmin(0),
            ),
        ],
        {"x": normal(2, 5, 4)},
    )


def test_order() -> None:
    def top(x: torch.Tensor, k: int, axis: int, ascending: bool) -> list[Any]:
        values = x.numpy()
        order = np.argsort(values if ascending else -values, axis=axis)
        places = np.take(order, range(k), axis=axis)
        return [np.take_along_axis(values, places, axis=axis), places]

    assert_agree(
        [
            Case("argsort", lambda x: mb.argsort(x=x), lambda x: np.argsort(-x.numpy())),
            Case(
                "argsort, ascending",
                lambda x: mb.argsort(x=x, axis=0, ascending=True),
                lambda x: np.argsort(x.numpy(), axis=0),
            ),
            Case("topk", lambda x: mb.topk(x=x, k=2), lambda x: top(x, 2, -1, False)),
            Case("bottom", lambda x: mb.topk(x=x, k=3, axis=0, ascending=True), lambda x: top(x, 3, 0, True)),
            Case(
                "values alone",
                lambda x: mb.topk(x=x, k=2, axis=1, return_indices=False),
                lambda x: top(x, 2, 1, False)[0],
            ),
            Case("cumsum", lambda x: mb.cumsum(x=x), lambda x: np.cumsum(x.numpy(), 0)),
            Case(
                "cumsum, exclusive",
                lambda x: mb.cumsum(x=x, axis=1, exclusive=True),
                lambda x: np.cumsum(x.numpy(), 1) - x.numpy(),
            ),
            Case(
                "cumsum, backwards",
                lambda x: mb.cumsum(x=x, axis=1, reverse=True),
                lambda x: np.cumsum(x.numpy()[:, ::-1], 1)[:, ::-1].copy(),
            ),
            Case(
                "cumsum, both",
                lambda x: mb.cumsum(x=x, axis=1, exclusive=True, reverse=True),
                lambda x: np.cumsum(x.numpy()[:, ::-1], 1)[:, ::-1] - x.numpy(),
            ),
        ],
        {"x": normal(4, 5)},
    )
