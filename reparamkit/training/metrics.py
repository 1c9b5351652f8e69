"""How good a classifier is on labelled images, as sums that add up over batches and processes.

    top-k               share of the images whose label is among the k largest logits
    loss                mean cross entropy, without smoothing
    calibration error   Σ_b n_b/N |accuracy_b − confidence_b| over 15 bins of equal width of the confidence

(The last is the expected calibration error of Guo et al., 2017, arXiv:1706.04599.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Scores:
    """Results on a number of images; shares from 0 to 1."""

    images: int
    top1: float
    top5: float
    loss: float
    calibration_error: float


class Counts:
    """Sums in float64: images, top-1, top-5, loss, and per bin images, confidence and correct ones."""

    def __init__(self) -> None:
        self.sums = torch.zeros(4 + 3 * BINS, dtype=torch.float64, device="cpu")

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (N, K) and labels (N) of one batch."""
        logits, labels = logits.to("cpu", torch.float64), labels.cpu()
        confidence, decisions = logits.softmax(1).max(1)
        correct = decisions == labels
        best = logits.topk(min(5, logits.shape[1]), 1).indices
        self.sums[0] += len(labels)
        self.sums[1] += correct.sum()
        self.sums[2] += (best == labels[:, None]).any(1).sum()
        self.sums[3] += F.cross_entropy(logits, labels, reduction="sum")
        bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        for place, values in enumerate((torch.ones_like(confidence), confidence, correct.to(torch.float64))):
            start = 4 + place * BINS
            self.sums[start : start + BINS].index_add_(0, bins, values)

    def scores(self) -> Scores:
        """The shares and means; NaN where there is no image."""
        images = self.sums[0].item()
        _, confidence, correct = self.sums[4:].reshape(3, BINS)
        gap = (correct - confidence).abs().sum() / images if images else torch.tensor(float("nan"))
        top1, top5, loss = ((value / images).item() if images else float("nan") for value in self.sums[1:4])
        return Scores(int(images), top1, top5, loss, float(gap))


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Scores:
    """Scores of `predict`, which maps images (N, 3, S, S) to logits (N, K).

    `reduce` adds a tensor up over all processes.
    """
    counts = Counts()
    for images, labels in batches:
        if len(labels):
            counts.add(predict(images), labels)
    counts.sums = reduce(counts.sums)
    return counts.scores()
