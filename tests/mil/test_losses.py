"""Which operations lose most in float16, against what float16 really does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.mil.evaluate import evaluate
from reparamkit.mil.graph import MilProgram
from reparamkit.mil.losses import losses
from reparamkit.mil.program import open_program
from tests.mil.programs import ct, mb, save

X = {"x": torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))}


def program(build: Any, path: Path) -> MilProgram:
    saved = save(build, X, path / "net.mlpackage", passes=True, compute_precision=ct.precision.FLOAT16)
    return open_program(saved)


def net(x: Any, *, shift: float = 0.0) -> Any:
    draw = np.random.default_rng(0)
    for number, (inputs, outputs) in enumerate([(3, 16), (16, 16), (16, 8)]):
        weight = draw.normal(size=(outputs, inputs, 3, 3)) / math.sqrt(9 * inputs)
        x = mb.conv(x=x, weight=weight.astype(np.float32), pad_type="same", name=f"conv_{number}")
        if number == 1 and shift:
            x = mb.add(x=x, y=np.float32(shift), name="up")
            x = mb.relu(x=x)
            x = mb.sub(x=x, y=np.float32(shift), name="down")
        else:
            x = mb.relu(x=x) if number < 2 else x
    return x


def real_error(made: MilProgram) -> float:
    """Of the float16 arithmetic alone; the stored weights are rounded in both."""
    (exact,) = evaluate(made, X, torch.float64).values()
    (found,) = evaluate(made, X).values()
    return float((found.double() - exact).square().sum().sqrt() / exact.square().sum().sqrt())


def test_the_errors_add_up_to_what_float16_costs(tmp_path: Path) -> None:
    made = program(net, tmp_path)
    found = losses(made, [X], passes=16)
    together = math.sqrt(sum(loss.error**2 for loss in found))
    assert real_error(made) / 2 < together < real_error(made) * 4  # with the rounding of the weights
    assert sum(loss.share for loss in found) == pytest.approx(1.0)
    assert {loss.operation.kind for loss in found} == {"cast", "conv"}  # the input is rounded too
    assert all(0 < loss.rounding <= 1 for loss in found)
    assert found == sorted(found, key=lambda loss: -loss.error)


def test_the_operation_that_loses_most_comes_first(tmp_path: Path) -> None:
    made = program(lambda x: net(x, shift=1000.0), tmp_path)
    found = losses(made, [X])
    assert found[0].operation.name.startswith("up")
    assert found[0].share > 0.9
    assert real_error(made) / 2 < found[0].error < real_error(made) * 2


def test_what_leaves_the_range_loses_everything(tmp_path: Path) -> None:
    def beyond(x: Any) -> Any:
        x = mb.mul(x=x, y=np.float32(60000.0), name="far")
        return mb.mul(x=mb.relu(x=x), y=np.float32(1 / 60000.0), name="back")

    made = program(beyond, tmp_path)
    found = losses(made, [X])
    assert [(loss.operation.kind, loss.share) for loss in found] == [
        ("mul", 1 / 3),
        ("relu", 1 / 3),
        ("mul", 1 / 3),
        ("cast", 0.0),
    ]
    assert [math.isinf(loss.error) for loss in found] == [True, True, True, False]


def test_same_seed_same_losses(tmp_path: Path) -> None:
    made = program(net, tmp_path)
    assert losses(made, [X, X], seed=5) == losses(made, [X, X], seed=5)


def test_the_inputs_are_left_alone(tmp_path: Path) -> None:
    losses(program(net, tmp_path), [X])
    assert not X["x"].requires_grad


def test_a_mask_of_minus_infinity_is_exact(tmp_path: Path) -> None:
    def masked(x: Any) -> Any:
        mask = np.where(np.eye(12) > 0, np.float32(-np.inf), np.float32(0))
        return mb.softmax(x=mb.add(x=x, y=mask.astype(np.float32)), axis=-1)

    found = losses(program(masked, tmp_path), [X])
    assert all(math.isfinite(loss.error) for loss in found)


def test_what_stays_in_float32_loses_nothing(tmp_path: Path) -> None:
    def in_float16(operation: Any) -> bool:
        return not operation.name.startswith(("up", "down", "relu", "conv_1", "conv_2"))

    precision = ct.transform.FP16ComputePrecision(op_selector=in_float16)
    saved = save(
        lambda x: net(x, shift=1000.0),
        X,
        tmp_path / "net.mlpackage",
        passes=True,
        compute_precision=precision,
    )
    found = losses(open_program(saved), [X])
    assert not [loss for loss in found if loss.operation.name.startswith("up")]
    assert max(loss.error for loss in found) < 1e-3
