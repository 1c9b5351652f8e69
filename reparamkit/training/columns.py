"""The rows of `metrics.csv`: one an epoch, column to value; and which columns are drawn together."""

from __future__ import annotations

import math
from dataclasses import dataclass

Row = dict[str, float]


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


def finite(row: Row) -> dict[str, float | None]:
    """What JSON has no word for becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
