"""What a training run was for: the network before and after folding, accuracy and latency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reparamkit.benchmark.timing import Timing, interleaved
from reparamkit.training.config import Config
from reparamkit.training.run_folder import CONFIG
from reparamkit.training.subjects import folded, open_validated
from reparamkit.training.validation import Validation, validate


@dataclass(frozen=True)
class BeforeAfter:
    """A trained network and what it folds to.

    Attributes:
        validation: one row before, one row after.
        latency: seconds for one image, eagerly: before, after.
        folded: the folded network.
    """

    validation: Validation
    latency: tuple[Timing, Timing]
    folded: nn.Module

    @property
    def speedup(self) -> float:
        """Ratio of the median latencies."""
        return self.latency[0].median / self.latency[1].median


def before_and_after(folder: Path) -> BeforeAfter:
    """Fold the best checkpoint of a run (the average, if there is one), and hold it against itself.

    The run has to be one's own: network and images are those of its ``config.yaml``, which may name code.

    Raises:
        ReparamkitError: it cannot be folded.
    """
    config = Config.resolve(folder / CONFIG)
    entry = open_validated(folder, model=config.model)
    assert entry.module is not None
    assert entry.size is not None
    assert entry.about is not None
    after = folded(entry, entry.size)
    assert after.module is not None
    validation = validate(
        [folder],
        config.data,
        model=config.model,
        input_size=entry.size,
        crop=config.crop,
        corrupt=config.corrupt,
        workers=config.workers,
        valid_share=config.valid_share,
        batch_size=config.batch_size,
    )
    image = torch.randn(1, 3, entry.size, entry.size, generator=torch.Generator().manual_seed(0))
    trained, deployed = entry.module, after.module
    with torch.inference_mode():
        timings = interleaved(
            {"before": lambda: trained(image), "after": lambda: deployed(image)}, warmup=20, rounds=100
        )
    return BeforeAfter(validation, (timings["before"], timings["after"]), deployed)
