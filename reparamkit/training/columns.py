"""The columns of `metrics.csv`, and which of them are drawn together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One set of axes: column -> its name in the legend."""

    title: str
    curves: dict[str, str]


PANELS = (
    Panel("loss", {"train_loss": "training", "loss": "validation", "ema_loss": "validation, average"}),
    Panel("top-1", {"train_top1": "training", "top1": "validation", "ema_top1": "validation, average"}),
    Panel("learning rate", {"lr": "learning rate"}),
)
