"""Sizes inside a network that its guards settle."""

from __future__ import annotations

from typing import Any

import pytest
import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.utils._sympy.functions import FloorDiv

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.capture.settled_sizes import SettledSizes
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.hosts.fx.read import FxHost
from tests.nets import Net, assert_same, noise, randomised


def _attention(s: Any, x: Tensor) -> Tensor:
    """Whether a row of the reshaped map is one channel's, the factors behind the product have to know."""
    y = s.stem(x).relu()
    q, k = (layer(y).reshape(y.shape[0], 2, -1, 9) for layer in (s.query, s.key))
    return ((q.transpose(2, 3) @ k) * 0.3).softmax(-1)


def _on_a_table(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return _attention(s, x), s.stem(x) + s.table


def _net(function: Any) -> nn.Module:
    parts: dict[str, Any] = {"query": nn.Conv2d(4, 6, 1), "key": nn.Conv2d(4, 6, 1), "table": noise(4, 3, 3)}
    net = Net(function, stem=nn.Conv2d(3, 4, 1, stride=4), **parts)
    return randomised(net).double()


def _captured(function: Any) -> tuple[nn.Module, Program]:
    net = _net(function)
    return net, capture(net, (noise(2, 3, 12, 9),), dynamic="auto")


def test_a_size_that_a_table_settles_is_a_number_inside_the_network() -> None:
    net, program = _captured(_on_a_table)
    assert program.sizes == "free batch and spatial sizes"
    reshapes = [node.value.sizes for node in FxHost(program).nodes if "reshape" in node.operator]
    assert [sizes[1:] for sizes in reshapes] == [(2, 3, 9)] * 2
    outcome = fold_program(program)
    left = census(outcome.module.graph, dict(outcome.module.named_modules()))
    assert "mul" not in left
    assert outcome.undone == ()
    for shape in [(2, 3, 12, 9), (1, 3, 10, 11), (3, 3, 9, 12)]:
        assert_same(net(noise(*shape)), outcome.module(noise(*shape)))
    with pytest.raises(ValueError, match="captured for other sizes"):
        outcome.module(noise(2, 3, 13, 9))


def test_a_product_that_only_divides_settles_nothing() -> None:
    """Eighteen positions are two rows of nine, and a channel's rows are then more than one.

    One factor for all channels passes the reshape all the same.
    """
    net, program = _captured(_attention)
    reshapes = [node.value.sizes for node in FxHost(program).nodes if "reshape" in node.operator]
    assert not all(isinstance(size, int) for sizes in reshapes for size in sizes[1:])
    outcome = fold_program(program)
    assert "mul" not in census(outcome.module.graph, dict(outcome.module.named_modules()))
    for shape in [(2, 3, 12, 9), (1, 3, 24, 9)]:
        x = noise(*shape)
        try:
            taken = outcome.module(x)
        except ValueError:
            continue
        assert_same(net(x), taken)


@pytest.mark.parametrize(
    ("guard", "settled"),
    [
        ("1 + (-1 + n0) // 4 == 3", 9),
        ("3 == 1 + (-1 + n0) // 4", 9),
        ("6 * ((-1 + n0) // 4) == 12", 9),
        ("(-1 + n0) // 4 >= 2", None),
        ("(-1 + n0) // 4 != 2", None),
        ("(-1 + n0) // 4 == n1", None),
        ("4 * ((-1 + n0) // 4) == 6", None),
        ("n0 == 12", None),
    ],
)
def test_what_a_guard_settles(guard: str, settled: int | None) -> None:
    _, program = _captured(lambda s, x: s.stem(x))
    assert program.guards is not None
    height, width = (program.shapes[0][1][axis].node.expr for axis in (2, 3))  # type: ignore[union-attr]
    guards = type(program.guards)(((0, 2), (0, 3)), ("h", "w"), (guard,))
    formula = (1 + FloorDiv(height - 1, 4)) * 3 + FloorDiv(width - 1, 4)
    rest = FloorDiv(width - 1, 4)
    expected = formula if settled is None else settled + rest
    assert sympy.simplify(SettledSizes(guards, program.shapes).of(formula) - expected) == 0


def test_no_guards_settle_nothing() -> None:
    height = sympy.Symbol("h", integer=True)
    assert SettledSizes(None, [("x", (torch.ones(1).shape[0],))]).of(height + 1) == height + 1
