"""Bits of the reader and the evaluator that no saved program reaches by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reparamkit.mil.graph import MilInput, Operation, Port
from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of
from reparamkit.mil.operators.windows import paddings


def _call(**values: Any) -> Call:
    operation = Operation("conv", "layer", {}, (Port("y", None, torch.float32),))
    return Call(operation, {name: [value] for name, value in values.items()}, torch.float32, 7)


def test_settings_of_the_wrong_kind_are_named(subtests: pytest.Subtests) -> None:
    call = _call(pad=torch.tensor([1.5]), mode=torch.tensor(1), pads="valid", two=torch.tensor([1, 2]))
    for ask, message in (
        (lambda: call.integers("pad"), "has a pad that is not integer"),
        (lambda: call.text("mode"), "has no mode"),
        (lambda: call.tensor("pads"), "has a text for pads"),
        (lambda: call.integer("two"), "has 2 values for two"),
        (lambda: call.number("two"), "has 2 values for two"),
        (lambda: call.tensor("bias"), "has no bias"),
        (lambda: axis_of(4, 3), "has the axis 4 where there are 3"),
        (
            lambda: paddings(_call(pad=torch.tensor([1])), "custom", [4], [3], [1]),
            "has 1 values for pad, 2 are",
        ),
    ):
        with subtests.test(str(ask)), pytest.raises(CannotEvaluate, match=message):
            ask()
    several = Call(call.operation, {"x": [torch.ones(1), torch.ones(1)]}, torch.float32, 7)
    with pytest.raises(CannotEvaluate, match="has 2 values for x"):
        several.tensor("x")


def test_an_input_without_an_upper_bound_takes_any_size() -> None:
    free = MilInput("x", (1, 4), torch.float32, ranges=((1, 1), (2, None)))
    assert free.accepts((1, 10**6))
    assert not free.accepts((1, 1))
    assert not free.accepts((1, 4, 1))


def test_ranges_of_the_description_without_a_bound() -> None:
    from reparamkit.mil.inputs import _range

    assert _range(SimpleNamespace(lowerBound=2, upperBound=-1)) == (2, None)
    assert _range(SimpleNamespace(lowerBound=2, upperBound=9)) == (2, 9)
