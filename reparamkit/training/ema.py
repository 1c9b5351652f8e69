"""An exponential moving average of the weights, and of the running statistics.

    θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t)/(10 + t))

after update t. The growing decay keeps the random start out of the average of a short run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def decay_at(updates: int, decay: float) -> float:
    """The decay of the average after `updates` updates."""
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it with each call of `update_parameters`."""

    def average(means: Any, values: Any, updates: int | Tensor) -> None:
        together: Sequence[Tensor] = means
        follow = get_ema_multi_avg_fn(decay_at(int(updates), decay))  # type: ignore[no-untyped-call]
        follow(together, values, updates)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
