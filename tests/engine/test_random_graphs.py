"""Random networks: the fold against the original, run eagerly in float64."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from reparamkit.engine import cost
from tests.engine.random_graphs import nets, noise_floor
from tests.engine.random_net import RandomNet
from tests.nets import Folded, fold, noise
from tests.slow_share import few

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

BAR = 1e-9
PARTS = 20
"""The thousands are dealt out into so many tests."""
_UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def _answer(module: torch.nn.Module, x: Tensor) -> Any:
    """The outputs, and the input as the network leaves it."""
    given = x.clone()
    with torch.no_grad():
        return module(given), given


def _assert_same(net: RandomNet, done: Folded, x: Tensor, where: str) -> None:
    expected, found = _answer(done.original, x), _answer(done.module, x)
    for a, b in zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=True):
        assert b.shape == a.shape, f"{where}: shape {list(b.shape)}\n{net.source}"
        error = (a - b).abs().max().item() / noise_floor(a) if a.numel() else 0.0
        assert error <= BAR, f"{where}: relative error {error:.1e}\n{net.source}"


def _other(done: Folded, x: Tensor) -> Tensor | None:
    """An input of another size along every axis that the capture left free."""
    axes = done.program.axes.get(0, {})
    if not axes:
        return None
    by_symbol: dict[str, int] = {}
    shape = list(x.shape)
    for axis, symbol in axes.items():
        shape[axis] = by_symbol.setdefault(symbol, shape[axis] + 1 + (axis > 0) * (axis % 2 + 1))
    return noise(*shape, seed=1)


def assert_same_function(net: RandomNet, x: Tensor, dynamic: Any, kappa: float = cost.KAPPA) -> None:
    """Fold a copy and compare: at the example, and at another size where sizes are free.

    `kappa`, the price of moving one element, decides what merges: at 1e6 all that is exact, at 0 what saves
    arithmetic. Exactness must not hang on it.
    """
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cost, "KAPPA", kappa)
            cost._layer.cache_clear()  # it remembers costs at another price
            done = fold(copy.deepcopy(net), x, dynamic=dynamic)
    except Exception as error:
        error.add_note(net.source)
        raise
    finally:
        cost._layer.cache_clear()
    _assert_same(net, done, x, "at the example")
    _assert_same(net, done, noise(*x.shape, seed=2), "at other values")
    other = _other(done, x)
    if other is not None:
        try:
            _answer(done.original, other)
        except (RuntimeError, ValueError):
            return
        try:
            _answer(done.module, other)
        except ValueError as error:
            if "captured for other sizes" in str(error):
                return
        _assert_same(net, done, other, f"at size {list(other.shape)}")


@pytest.mark.parametrize("count", few([40, 240], 40))
def test_the_fold_of_a_random_network_is_the_same_function(count: int) -> None:
    @given(drawn=nets(), kappa=st.sampled_from([cost.KAPPA, cost.KAPPA, 1e6, 0.0]))
    @settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=_UNHURRIED
    )
    def holds(drawn: tuple[RandomNet, Tensor], kappa: float) -> None:
        assert_same_function(*drawn, dynamic=False, kappa=kappa)

    holds()


@pytest.mark.parametrize("count", few([8, 15, 60], 8))
def test_the_fold_of_a_random_network_holds_at_every_size(count: int) -> None:
    @given(drawn=nets())
    @settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=_UNHURRIED
    )
    def holds(drawn: tuple[RandomNet, Tensor]) -> None:
        assert_same_function(*drawn, dynamic="auto")

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_folds_of_thousands_of_random_networks(part: int, capsys: pytest.CaptureFixture[str]) -> None:
    """REPARAMKIT_SEED and REPARAMKIT_GRAPHS choose which and how many in all."""
    number = PARTS * int(os.environ.get("REPARAMKIT_SEED", "0")) + part
    graphs = int(os.environ.get("REPARAMKIT_GRAPHS", "3000")) // PARTS
    count = 0

    @seed(number)
    @given(
        drawn=nets(most=14),
        dynamic=st.sampled_from([False, False, False, "batch", "auto"]),
        kappa=st.sampled_from([cost.KAPPA, 1e6, 0.0]),
    )
    @settings(max_examples=graphs, deadline=None, database=None, suppress_health_check=_UNHURRIED)
    def sweep(drawn: tuple[RandomNet, Tensor], dynamic: Any, kappa: float) -> None:
        nonlocal count
        count += 1
        assert_same_function(*drawn, dynamic=dynamic, kappa=kappa)

    try:
        sweep()
    finally:
        with capsys.disabled():
            print(f"\nseed {number}: {count} random networks")  # noqa: T201
