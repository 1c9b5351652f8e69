"""The rows of `metrics.csv`, one an epoch, column to value; and the curves that are drawn of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
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


def draw_curves(history: Sequence[Row], title: str) -> bytes:
    """Loss, accuracy and learning rate over the epochs, as the content of a PNG file.

    Only what the rows have is drawn; one figure for losses, one for accuracies, one for the learning rate.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if any(name in row for row in history for name in panel.curves)]
    figure = Figure(figsize=(3.6 * len(panels), 2.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name, label in panel.curves.items():
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, label=label, marker="o" if len(points) < 3 else None)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
