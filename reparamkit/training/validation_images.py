"""The validation images of a run, as its network takes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from reparamkit.errors import UnusableInput
from reparamkit.training.augment import normalised
from reparamkit.training.config import DataSettings
from reparamkit.training.data import Data, validation_batches
from reparamkit.training.data.loader import Place


def validation_images(
    data: Data, settings: DataSettings, size: int, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images (N, 3, size, size) on the device and labels (N); each process gets its own share.

    Raises UnusableInput for a label that is no class, and for a corrupt image that is fatal.
    """
    batches = validation_batches(
        data.valid,
        data.columns,
        size,
        max(1, settings.batch_size // accelerator.num_processes),
        crop=settings.crop,
        corrupt=settings.corrupt,
        workers=settings.workers,
        place=Place(accelerator.process_index, accelerator.num_processes),
    )
    for batch in batches:
        if len(batch.labels) == 0:
            continue
        check_labels(batch.labels, data)
        images = batch.images.to(accelerator.device, non_blocking=True).float() / 255
        x = normalised(images, data.mean, data.std)
        if settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        yield x, batch.labels


def check_labels(labels: Tensor, data: Data) -> None:
    """Raise UnusableInput for a label that is no class: a source of one's own may give any."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(data.classes):
        raise UnusableInput(
            f"{data.name} has the label {low if low < 0 else high}, and its {len(data.classes)} classes are "
            f"numbered from 0 to {len(data.classes) - 1}"
        )
