"""A squeeze says which axes go, or leaves that to the run, or its size must not be one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from tests.nets import Net, noise


def _captured(forward: Callable[[Any, Tensor], Any], *shape: int) -> Program:
    return capture(Net(forward).eval(), (noise(*shape),), dynamic="auto")


def _squeezes(program: Program) -> list[tuple[str, Any]]:
    return [
        (str(node.target).removeprefix("aten."), node.args[1] if len(node.args) > 1 else None)
        for node in program.graph.nodes
        if node.op == "call_function" and ("squeeze" in str(node.target) or "alias" in str(node.target))
    ]


FIXED: dict[str, tuple[Callable[[Any, Tensor], Any], list[tuple[str, Any]]]] = {
    "of what is one": (lambda s, x: x.mean(1, True).squeeze(1).cumsum(0), [("squeeze.dims", [1])]),
    "of several": (lambda s, x: x.mean((1, 2), True).squeeze((1, 2)).cumsum(0), [("squeeze.dims", [1, 2])]),
    "by a negative axis": (lambda s, x: x.mean(-1, True).squeeze(-1).cumsum(0), [("squeeze.dims", [3])]),
    "of what never is": (lambda s, x: x.reshape(-1, 3).squeeze(1).cumsum(0), [("alias.default", None)]),
}


@pytest.mark.parametrize("name", FIXED)
def test_of_a_fixed_size(name: str) -> None:
    forward, squeezes = FIXED[name]
    program = _captured(forward, 2, 3, 6, 5)
    assert _squeezes(program) == squeezes
    assert program.guards is not None
    assert not program.guards.permanent


HELD: dict[str, tuple[Callable[[Any, Tensor], Any], set[int]]] = {
    "the batch": (lambda s, x: x.squeeze(0).cumsum(0), {0}),
    "the width": (lambda s, x: x.squeeze(-1).cumsum(0), {3}),
    "whatever is one": (lambda s, x: x.squeeze().cumsum(0), {0, 2, 3}),
    "two of them": (lambda s, x: x.squeeze((0, 2)).cumsum(0), {0, 2}),
    "in place": (lambda s, x: (x * 2).squeeze_(0).cumsum(0), {0}),
    "in place, whatever": (lambda s, x: (x * 2).squeeze_().cumsum(0), {0, 2, 3}),
    "after a product that asks for it": (lambda s, x: (x @ x.mT).squeeze(2).cumsum(0), {2}),
    "where the network asks for it": (
        lambda s, x: (x if x.shape[0] == 1 else x.contiguous()).squeeze(0).cumsum(0),
        {0},
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_a_size_that_varies_must_not_be_one(name: str, subtests: pytest.Subtests) -> None:
    forward, axes = HELD[name]
    program = _captured(forward, 2, 3, 6, 5)
    guards = program.guards
    assert guards is not None
    for axis in (0, 2, 3):
        with subtests.test(str(axis)):
            sizes = [1 if place == (0, axis) else (2, 3, 6, 5)[place[1]] for place in guards.places]
            assert guards.accepts(sizes) == (axis not in axes)
            if axis in axes:
                assert guards.permanent.intersection(guards.broken(sizes))


@pytest.mark.parametrize(
    "after",
    [torch.relu, lambda y: y.softmax(-1), lambda y: y.argmax(-1), lambda y: y.squeeze().sigmoid()],
)
def test_where_any_rank_is_right_the_squeeze_stays(after: Callable[[Tensor], Tensor]) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return after(x.mean((2, 3)).squeeze())

    program = _captured(forward, 2, 3, 6, 5)
    assert all("alias" not in name for name, _ in _squeezes(program))
    assert program.takes((noise(1, 3, 6, 5),), {})
