"""Networks that give other outputs for the same input: dropout that is on, noise that is drawn in forward.

Nothing can be compared with such a network. It is run twice on one input. Where the two runs differ, threads
may have summed in another order; so it is run twice more from one state of the random generators, and only
where that makes the runs the same, or they differ by far more than rounding, is it called random.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from reparamkit.compare.inputs.probes import Probe
from reparamkit.compare.measure import as_real
from reparamkit.compare.noise import noise_between
from reparamkit.runners.base import NamedTensors, Runner
from reparamkit.support.isolation import random_state_kept

_FAR = 2.0**-11
"""Of an output's scale: half the digits of float32, which no order of summation costs."""


def drawn_outputs(runner: Runner, probe: Probe, first: NamedTensors | None = None) -> list[str]:
    """The outputs that are other ones in a second run on the same input, by name; usually none.

    Args:
        first: the outputs of the first run, where it was made already.

    Raises:
        Exception: whatever the network raises.
    """
    first = runner.run(*probe.inputs()) if first is None else first
    second = runner.run(*probe.inputs())
    changed = _changed(first, second)
    if not changed:
        return []
    with _seeded():
        again = runner.run(*probe.inputs())
    with _seeded():
        once_more = runner.run(*probe.inputs())
    if not _changed(again, once_more):
        return changed
    return [name for name in changed if _far(dict(first)[name], dict(second).get(name))]


def said_of(names: list[str], who: str) -> str:
    """The finding, with the remedy, as a sentence without its end."""
    outputs = ", ".join(map(repr, names))
    return (
        f"{who} is random: it gives other outputs ({outputs}) for the same input. Turn off what draws "
        f"numbers in it (dropout, noise), or let it draw them from a seed of its own"
    )


def _changed(left: NamedTensors, right: NamedTensors) -> list[str]:
    others = dict(right)
    return [name for name, tensor in left if name not in others or not equal(tensor, others[name])]


def equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are the same, NaN being the same as NaN."""
    if left.shape != right.shape or left.dtype is not right.dtype:
        return False
    left, right = as_real(left), as_real(right)
    return bool(((left == right) | ((left != left) & (right != right))).all())


def _far(left: torch.Tensor, right: torch.Tensor | None) -> bool:
    if right is None or left.shape != right.shape:
        return True
    left, right = as_real(left), as_real(right)
    if not left.is_floating_point():
        return True
    scale = float(left.abs().nan_to_num(0, 0, 0).max()) if left.numel() else 0.0
    return noise_between(left, right).whole > _FAR * scale


@contextmanager
def _seeded() -> Iterator[None]:
    """All random generators that a network is likely to use, from one state, and put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with random_state_kept():
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
