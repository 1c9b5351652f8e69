"""The proof of a fold: what it lets pass, and what it must not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.engine.layers import Realisation
from reparamkit.hosts.fx.calls import call_grouped
from tests.nets import Net, assert_same, fold, noise, randomised


def _block() -> nn.Module:
    return randomised(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e-3], ids=["nan", "inf", "shifted"])
@pytest.mark.parametrize("where", ["everywhere", "one element"])
def test_trap_14_a_layer_that_answers_wrongly_or_nan_is_not_proven(
    wrong: float, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN compares false with everything, so max() and > let it pass."""
    run = Realisation.run

    def broken(self: Realisation, values: dict[int, Tensor]) -> Tensor:
        result = run(self, values).clone()
        (result if where == "everywhere" else result.view(-1)[-1:]).add_(wrong)
        return result

    monkeypatch.setattr(Realisation, "run", broken)
    done = fold(_block(), noise(2, 3, 6, 6))
    assert done.folds == ()
    assert "float64 check failed" in done.reasons()
    done.compare(noise(2, 3, 6, 6))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_and_the_pass_ends(poison: float) -> None:
    net = Net(
        lambda self, x: nn.functional.conv2d(x, self.weight * 2), weight=nn.Parameter(noise(4, 3, 1, 1))
    )
    with torch.no_grad():
        net.get_parameter("weight")[0, 0] = poison
    done = _within(20, lambda: fold(net, noise(2, 3, 6, 6)))
    assert done.folds == ()
    assert done.reasons() != ""


def _within(seconds: int, function: Any) -> Any:
    """The result, or a failure once the time is up: what never ends would hang the test run."""
    import signal

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return function()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("dtype", "first", "then"),
    [
        (torch.float32, 1e-30, (1e30, 1e30)),
        (torch.float32, 1e30, (1e-30, 1e-30)),
        (torch.float16, 1e-4, (300.0, 300.0)),
        (torch.float16, 1e-6, (3000.0, 3000.0)),
    ],
)
def test_trap_11_factors_that_only_together_leave_the_number_type_stay_apart(
    dtype: torch.dtype, first: float, then: tuple[float, float]
) -> None:
    """x·1e30·1e30 is finite where x is 1e-30, but 1e60 is no float32."""
    net = Net(lambda self, x: (x * first).relu() * then[0] * then[1])
    x = noise(2, 3, 6, 6).to(dtype)
    done = fold(net, x, dtype=dtype)
    done.compare(x, bar=16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "attributes", [((1, 1), (1,), (1, 1)), ((2, 1), (0, 2), (1, 2)), ((1,), (1, 1), (2,))]
)
@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("window", [(1, 1), (3, 2)])
def test_a_small_convolution_in_groups_is_the_same_by_another_way(
    attributes: tuple[tuple[int, ...], ...], groups: int, window: tuple[int, int]
) -> None:
    x, weight, bias = noise(2, 6, 5, 4), noise(12, 6 // groups, *window), noise(12)
    arguments = (x, weight, bias, *map(list, attributes), groups)
    expected = torch.ops.aten.conv2d.default(*arguments)
    assert_same(expected, call_grouped(torch.ops.aten.conv2d.default, arguments, {}), 1e-13)
