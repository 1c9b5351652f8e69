"""The user's own example: captured with a batch of two in its place, and held against the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit import api
from reparamkit.capture.agreement import batch_is_free, differs_on_example, two_of_each
from reparamkit.capture.export import capture
from tests.nets import Net, noise, randomised

SHAPE = (2, 3, 6, 5)


def test_two_of_each() -> None:
    x, y = noise(1, 3), noise(1)
    args, kwargs = two_of_each((x, [3, y]), {"z": None}) or ((), {})
    assert torch.equal(args[0], torch.cat([x, x]))
    assert args[1][0] == 3
    assert args[1][1].shape == (2,)
    assert kwargs == {"z": None}
    assert two_of_each((noise(2, 3),), {}) is None
    assert two_of_each((noise(1, 3), noise(2)), {}) is None
    assert two_of_each((noise(1, 3), torch.tensor(3)), {}) is None
    assert two_of_each((3,), {}) is None


def test_whether_the_batch_is_free() -> None:
    net = Net(lambda s, x: x * 2)
    free = torch.export.export(net, (noise(*SHAPE),), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
    assert batch_is_free(free)
    assert not batch_is_free(torch.export.export(net, (noise(*SHAPE),)))


def _differs(forward: Callable[[Any, Tensor], Any], x: Tensor | None = None, **parts: Any) -> bool:
    net = randomised(Net(forward, **parts)).double()
    given = (noise(*SHAPE) if x is None else x,)
    return differs_on_example(capture(net, given, dynamic=False), net, given, {})


AGREE: dict[str, Callable[[Any, Tensor], Any]] = {
    "layers": lambda s, x: s.norm(s.conv(x)),
    "in place": lambda s, x: s.conv(x).relu_().add_(1),
    "integers": lambda s, x: s.conv(x).argmax(1),
    "several": lambda s, x: {"a": s.conv(x), "b": [x.shape[0], (x > 0, None)]},
    "nothing in it": lambda s, x: s.conv(x)[:0],
    "not finite": lambda s, x: s.conv(x).mul(0).log(),
}
DIFFER: dict[str, Callable[[Any, Tensor], Any]] = {
    "a factor": lambda s, x: s.conv(x) * (1.0001 if torch.compiler.is_exporting() else 1),
    "an integer": lambda s, x: s.conv(x).argmax(1) + int(torch.compiler.is_exporting()),
    "a type": lambda s, x: s.conv(x).to(torch.float32 if torch.compiler.is_exporting() else torch.float64),
    "a shape": lambda s, x: s.conv(x)[: 1 if torch.compiler.is_exporting() else 2],
    "a number": lambda s, x: (s.conv(x), int(torch.compiler.is_exporting())),
    "its length": lambda s, x: [s.conv(x)] * (2 if torch.compiler.is_exporting() else 1),
    "one element": lambda s, x: torch.where(
        torch.arange(5) == (4 if torch.compiler.is_exporting() else 5), 0.0, s.conv(x)
    ),
    "not a number": lambda s, x: s.conv(x) * (float("nan") if torch.compiler.is_exporting() else 1),
}


@pytest.mark.parametrize("name", AGREE)
def test_what_is_captured_rightly(name: str) -> None:
    differs = _differs(AGREE[name], conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4))
    assert differs == (name == "not finite")  # which has to be looked at


@pytest.mark.parametrize("name", DIFFER)
def test_what_is_captured_wrongly(name: str) -> None:
    assert _differs(DIFFER[name], conv=nn.Conv2d(3, 4, 3, padding=1))


def test_what_writes_is_looked_at_in_full() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.count.add_(1)
        return x * 2

    assert _differs(forward, count=torch.zeros(1))


def test_the_whole_verification_runs_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    judge = api._verdict_on

    def counted(network: Any) -> Any:
        runs.append(1)
        return judge(network)

    monkeypatch.setattr(api, "_verdict_on", counted)
    x = noise(*SHAPE, dtype=torch.float32)
    right = randomised(Net(AGREE["layers"], conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    assert rk.fold(right, x, verify=False).equivalence is None
    assert not runs
    wrong = randomised(Net(DIFFER["a factor"], conv=nn.Conv2d(3, 4, 3)))
    with pytest.raises(
        rk.NotEquivalent, match="the network runs other operators than when it is called: mul with"
    ):
        rk.fold(wrong, x, verify=False)
    assert runs
