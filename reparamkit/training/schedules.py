"""How learning rate and weight decay go over the updates of a run.

    warm-up   v(t) = v₀ + (v₁ − v₀) t/w                               t < w
    cosine    v(t) = v₂ + (v₁ − v₂) (1 + cos(π (t − w)/(T − w)))/2    t ≥ w

Both have a closed form, so that a run that goes on from a checkpoint meets the same numbers to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from reparamkit.training.config import DataSettings


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at step `steps` and after it, along half a cosine."""
    share = min(1.0, step / max(1, steps))
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def warmup_cosine(peak: float, start: float, end: float, warmup: int, step: int, steps: int) -> float:
    """From `start` to `peak` in `warmup` steps, a line; then to `end` at step `steps`, a cosine."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return cosine(peak, end, step - warmup, steps - warmup)


def learning_rate(
    optimizer: Optimizer, *, peak: float, start: float, end: float, warmup: int, steps: int
) -> LambdaLR:
    """Warm-up and cosine as a scheduler to be stepped once for every update.

    A parameter group whose rate is a multiple of `peak` (layer-wise decay) keeps that multiple.
    """

    def factor(step: int) -> float:
        return warmup_cosine(peak, start, end, warmup, step, steps) / peak

    return LambdaLR(optimizer, factor)


def schedules(
    optimizer: Optimizer, settings: DataSettings, updates: int
) -> tuple[LambdaLR, CosineWeightDecay | None]:
    """Those of learning rate and weight decay that the settings ask for, with `updates` updates an epoch."""
    steps = settings.epochs * updates
    epochs = settings.epochs / 20 if settings.warmup_epochs is None else settings.warmup_epochs
    rate = learning_rate(
        optimizer,
        peak=settings.lr,
        start=settings.warmup_lr,
        end=settings.min_lr,
        warmup=round(epochs * updates),
        steps=steps,
    )
    if settings.weight_decay_end is None:
        return rate, None
    return rate, CosineWeightDecay(optimizer, settings.weight_decay, settings.weight_decay_end, steps)


class CosineWeightDecay:
    """The weight decay of every group that decays, from `start` to `end` along half a cosine.

    To be stepped once for every update, like a learning-rate scheduler. Groups whose decay is 0 keep it. The
    position is part of `state_dict`: the pipeline that this follows forgets it when a run goes on.
    """

    def __init__(self, optimizer: Optimizer, start: float, end: float, steps: int) -> None:
        self._optimizer = optimizer
        # By place: an optimizer that loads a state has other groups afterwards.
        self._places = [
            place for place, group in enumerate(optimizer.param_groups) if group["weight_decay"] > 0
        ]
        self._start, self._end, self._steps = start, end, steps
        self._step = 0
        self._set()

    @property
    def value(self) -> float:
        """The decay of the next update."""
        return cosine(self._start, self._end, self._step, self._steps)

    def step(self) -> None:
        """Go on to the next update."""
        self._step += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._step = int(state["step"])
        self._set()

    def _set(self) -> None:
        for place in self._places:
            self._optimizer.param_groups[place]["weight_decay"] = self.value
