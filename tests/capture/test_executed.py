"""Two runs are the same computation, or they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reparamkit.capture.executed import Executed, Expressions, first_difference
from tests.nets import Net, noise

Run = Callable[[Any, Tensor], Any]


class _Recorder:
    """Runs functions of one module and one input, with numbers that they share."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Net(lambda s, x: x, count=noise(1), row=noise(9))
        self.expressions = Expressions(self.net)

    def results(self, run: Run, *shape: int) -> tuple[tuple[Any, ...], list[tuple[int, Any]]]:
        x = noise(*(shape or (2, 3, 8, 9)))
        executed = Executed(self.expressions, [x])
        with torch.no_grad(), executed:
            outputs = run(self.net, x)
        found = executed.results(outputs)
        executed.put_back()
        return found, executed.calls


def _cached() -> Run:
    """A table that is made once and remembered."""
    tables: list[Tensor] = []

    def run(s: Any, x: Tensor) -> Tensor:
        if not tables:
            tables.append(torch.arange(x.shape[3], dtype=x.dtype) * 2)
        return x + tables[0]

    return run


def _written_then_read(s: Any, x: Tensor) -> Tensor:
    y = x * 2
    y[:, 0].add_(1)
    return y


def _read_then_written(s: Any, x: Tensor) -> Tensor:
    y = x * 2
    z = y.clone()
    y[:, 0].add_(1)
    return z


def _counts(s: Any, x: Tensor) -> Tensor:
    s.count.add_(1)
    return x * 2


def _adds_into_its_input(s: Any, x: Tensor) -> Tensor:
    y = x * 2
    x.add_(1)
    return y


_REMEMBERED = _cached()
SAME: dict[str, tuple[Run, Run]] = {
    "order of what is independent": (
        lambda s, x: (lambda a, b: a + b)(x.sin(), x.cos()),
        lambda s, x: (lambda b, a: a + b)(x.cos(), x.sin()),
    ),
    "dead code": (lambda s, x: (x.exp(), x.sin())[1], lambda s, x: x.sin()),
    "a cached table": (_REMEMBERED, _REMEMBERED),
    "a table made anew": (_cached(), lambda s, x: x + torch.arange(9, dtype=x.dtype).mul(2)),
    "an alias": (
        lambda s, x: torch.ops.aten.alias(x.detach()) * 2,
        lambda s, x: x * 2,
    ),
    "a cast that is none": (lambda s, x: x.to(torch.float64, copy=True).sin(), lambda s, x: x.sin()),
    "a copy": (lambda s, x: x.mT.contiguous().sin(), lambda s, x: x.mT.sin()),
    "a copy that is left alone": (_read_then_written, lambda s, x: x * 2),
    "a slice of the whole": (lambda s, x: x[:, :][:100].sin(), lambda s, x: x.sin()),
    "the fifteenth digit": (lambda s, x: x * (0.1 + 0.2), lambda s, x: x * 0.3),
    "an assertion": (lambda s, x: (torch._assert_async(torch.tensor(True)), x * 2)[1], lambda s, x: x * 2),
    "a repeated constant": (lambda s, x: x + torch.full((9,), 7.0), lambda s, x: x + torch.ones(9) * 7),
}
OTHER: dict[str, tuple[Run, Run]] = {
    "an argument": (lambda s, x: x * 2, lambda s, x: x * 2.001),
    "the ninth digit": (lambda s, x: x * 1.5, lambda s, x: x * 1.50000001),
    "an integer for a float": (lambda s, x: x.sum(1), lambda s, x: x.sum(2)),
    "a boolean for an integer": (lambda s, x: x.sum(1, True), lambda s, x: x.sum(1, False)),
    "operands exchanged": (lambda s, x: x.sin() - x.cos(), lambda s, x: x.cos() - x.sin()),
    "wiring": (lambda s, x: x.sin().cos() + x.sin(), lambda s, x: x.sin().cos() + x.sin().cos()),
    "values of a constant": (
        lambda s, x: x + torch.full((9,), 7.0),
        lambda s, x: x + torch.full((9,), 7.0).sub(7),
    ),
    "one element of a constant": (
        lambda s, x: x + torch.arange(9),
        lambda s, x: x + torch.arange(9).where(torch.arange(9) != 8, 0),
    ),
    "the type of a constant": (lambda s, x: x * torch.tensor(2.0), lambda s, x: x * torch.tensor(2)),
    "which parameter": (lambda s, x: x[0, 0] + s.row, lambda s, x: x[0, 0] + s.count),
    "a part of a parameter": (
        lambda s, x: x[:, 0, 0, 0] * s.row[:2],
        lambda s, x: x[:, 0, 0, 0] * s.row[1:3],
    ),
    "a write into state": (_counts, lambda s, x: x * 2),
    "a write into an input": (_adds_into_its_input, lambda s, x: x * 2),
    "a write and a later read": (_written_then_read, lambda s, x: x * 2),
    "a write and an earlier read": (_written_then_read, _read_then_written),
    "a write into a copy": (
        lambda s, x: (lambda y: (y.clone().add_(1), y)[1])(x * 2),
        lambda s, x: (lambda y: (y.add_(1), y)[1])(x * 2),
    ),
    "two writes in another order": (
        lambda s, x: (x * 2).add_(1).mul_(3),
        lambda s, x: (x * 2).mul_(3).add_(1),
    ),
    "the order of outputs": (lambda s, x: (x.sin(), x.cos()), lambda s, x: (x.cos(), x.sin())),
    "which result": (lambda s, x: x.max(1)[0], lambda s, x: x.max(1)[1]),
    "the type of an output": (lambda s, x: x.sin(), lambda s, x: x.sin().float()),
    "the structure of an output": (lambda s, x: x.sin(), lambda s, x: {"map": x.sin()}),
    "a list for a tuple": (lambda s, x: [x.sin()], lambda s, x: (x.sin(),)),
    "a number among the outputs": (lambda s, x: (x.sin(), 1), lambda s, x: (x.sin(), 2)),
    "True for one": (lambda s, x: (x.sin(), 1), lambda s, x: (x.sin(), True)),
    "a name in another keyword": (lambda s, x: x.clamp(min=1), lambda s, x: x.clamp(max=1)),
    "a view of another part": (lambda s, x: x[:, :1] * 2, lambda s, x: x[:, 1:2] * 2),
}


@pytest.mark.parametrize("name", SAME)
def test_what_makes_no_difference(name: str) -> None:
    recorder = _Recorder()
    one, other = SAME[name]
    assert recorder.results(one)[0] == recorder.results(other)[0]


@pytest.mark.parametrize("name", OTHER)
def test_what_makes_one(name: str) -> None:
    recorder = _Recorder()
    one, other = OTHER[name]
    assert recorder.results(one)[0] == recorder.results(one)[0]
    assert recorder.results(one)[0] != recorder.results(other)[0]


def test_another_shape_or_type_of_an_input_is_another_computation() -> None:
    recorder = _Recorder()
    plain = recorder.results(lambda s, x: x.sin())[0]
    assert recorder.results(lambda s, x: x.sin(), 2, 3, 8, 8)[0] != plain
    executed = Executed(recorder.expressions, [given := noise(2, 3, 8, 9).float()])
    with executed:
        outputs = given.sin()
    assert executed.results(outputs) != plain


def test_writes_into_state_are_put_back() -> None:
    recorder = _Recorder()
    before = recorder.net.get_buffer("count").clone()
    recorder.results(lambda s, x: (_counts(s, x), _counts(s, x))[1])
    assert torch.equal(recorder.net.get_buffer("count"), before)


def test_the_first_difference_in_words() -> None:
    recorder = _Recorder()

    def between(one: Run, other: Run) -> str:
        return first_difference(recorder.results(one)[1], recorder.results(other)[1])

    assert between(lambda s, x: x.sin(), lambda s, x: x.sin()) == ""
    assert between(lambda s, x: x.sin() * 2, lambda s, x: x.sin() * 3) == "mul with other arguments"
    assert between(lambda s, x: x.sin(), lambda s, x: x.cos()) == "sin where cos was captured"
    assert between(lambda s, x: x.sin(), lambda s, x: x) == "sin where nothing was captured"
    assert between(lambda s, x: x, lambda s, x: x.sin()) == "nothing where sin was captured"
