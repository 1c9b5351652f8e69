"""A network beside what was captured of it: what is seen at other sizes and in other modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.capture.modes import Mode, other_modes
from reparamkit.capture.witness import Answer, Observation, Witness
from tests.nets import Net, noise

EXAMPLE = (2, 3, 8, 9)


def _witness(forward: Callable[[Any, Tensor], Any], **parts: Any) -> tuple[Witness, Net]:
    net = Net(forward, **parts).eval()
    program = capture(net, (noise(*EXAMPLE),), dynamic="auto")
    return Witness(program.exported, net, program.args, program.kwargs), net


def _at_one(forward: Callable[[Any, Tensor], Any]) -> Observation:
    return _witness(forward)[0].at({(0, 2): 1})


def test_the_same() -> None:
    witness, _ = _witness(lambda s, x: x.sin() + x.cos() * x.shape[2])
    for sizes in ({}, {(0, 0): 1}, {(0, 2): 1, (0, 3): 1}, {(0, 0): 0}, {(0, 2): 40}):
        assert witness.at(sizes).same


def test_something_else_and_what() -> None:
    seen = _at_one(lambda s, x: x * (3 if x.shape[2] == 1 else 2))
    assert seen == Observation(Answer.OTHER, "mul with other arguments")
    seen = _at_one(lambda s, x: x.sin() if x.shape[2] == 1 else x.cos())
    assert seen == Observation(Answer.OTHER, "sin where cos was captured")
    assert _at_one(lambda s, x: [x.sin()] if x.shape[2] == 1 else (x.sin(),)).answer is Answer.OTHER
    assert _at_one(lambda s, x: x.sin().mul(x.shape[2] + 1 if x.shape[2] == 1 else x.shape[2])).answer is (
        Answer.OTHER
    )


def test_what_the_network_refuses_itself() -> None:
    def refusing(s: Any, x: Tensor) -> Tensor:
        assert x.shape[2] > 1, "too flat"
        return x * 2

    assert _at_one(refusing).answer is Answer.REFUSED
    assert _at_one(lambda s, x: nn.functional.avg_pool2d(x, 2)).answer is Answer.REFUSED


def test_what_the_graph_does_not_run_is_something_else() -> None:
    seen = _at_one(lambda s, x: x.cumsum(0) if x.shape[2] == 1 else x.unfold(2, 2, 1))
    assert seen == Observation(Answer.OTHER, "the captured graph does not run there")


def test_what_cannot_be_watched_is_unknown() -> None:
    class Unseen(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise RuntimeError("watched")
            return x * 2

    witness, net = _witness(lambda s, x: x * 2)
    net.function = lambda s, x: Unseen.apply(x)
    assert witness.observe((noise(2, 3, 4, 4),), {}).answer is Answer.UNKNOWN


def test_each_point_is_run_once() -> None:
    runs: list[int] = []
    witness, net = _witness(lambda s, x: x * 2)

    def counted(s: Any, x: Tensor) -> Tensor:
        runs.append(1)
        return x * 2

    net.function = counted
    witness.at({(0, 2): 1})
    witness.at({(0, 2): 1})
    assert len(runs) == 1


def test_neither_state_nor_random_numbers_are_touched() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.count.add_(1)
        s.mean = s.mean * 0.5
        return x * s.count + s.mean

    witness, net = _witness(forward, count=torch.zeros(1), mean=torch.ones(1))
    held, random = (net.count, net.mean), torch.get_rng_state()
    witness.at({(0, 2): 1})
    assert (net.get_buffer("count").item(), net.get_buffer("mean").item()) == (0, 1)
    assert net.count is held[0]
    assert net.mean is held[1]
    assert torch.equal(random, torch.get_rng_state())


def _in_modes(forward: Callable[[Any, Tensor], Any]) -> dict[str, Observation]:
    witness, _ = _witness(forward)
    return witness.differing_modes((noise(2, 3, 4, 5),), {}, other_modes("cpu"))


def test_modes_in_which_a_network_differs() -> None:
    assert _in_modes(lambda s, x: x.sin()) == {}
    found = _in_modes(lambda s, x: x.sin() if torch.is_grad_enabled() else x.cos())
    assert set(found) == {"when gradients are recorded", "for inputs that require gradients"}
    assert found["when gradients are recorded"].difference == "sin where cos was captured"


def test_a_mode_that_the_network_refuses_is_left_out() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients here")
        return x.sin()

    assert _in_modes(forward) == {}


def _mode(name: str) -> Mode:
    return next(mode for group in other_modes("cpu") for mode in group if mode.name == name)


def test_a_mode_ends() -> None:
    witness, net = _witness(lambda s, x: x * (2 if s.training else 1))
    mode = Mode("in training mode", around=_mode("in training mode").around)
    assert set(witness.differing_modes((noise(2, 3, 4, 5),), {}, [[mode]])) == {"in training mode"}
    assert not net.training
