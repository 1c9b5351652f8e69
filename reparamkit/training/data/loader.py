"""Batches: which images make an update, in which order, and which process gets which.

Update u of an epoch is made of images π(uB), …, π((u + 1)B − 1), where π is a permutation drawn from seed and
epoch. It is cut into micro-batches, and each of these among the processes. So the images of an update do not
depend on the number of processes, and a run that goes on in the middle of an epoch starts with the very next
image. What is left of an epoch behind the last whole batch is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reparamkit.errors import UnusableInput
from reparamkit.training.config import DataSettings
from reparamkit.training.data.images import CorruptImage, central, decoded, random_crop
from reparamkit.training.data.sources import Data, Samples

_SHUFFLED = 10_000
"""Rows of a stream among which the next one is drawn."""


@dataclass
class Batch:
    """Images (N, 3, S, S) of bytes, labels (N), their places in the data, and the images left out."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    corrupt: tuple[str, ...] = ()

    def pin_memory(self) -> Batch:
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices, self.corrupt)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this one is."""

    process: int = 0
    processes: int = 1


def updates_per_epoch(data: Data, settings: DataSettings) -> int:
    """How many whole batches an epoch has.

    Raises UnusableInput where there is not one, or where nothing says how long the stream is.
    """
    if data.is_stream:
        length = settings.epoch_size or _stated_length(data.train)
        if length is None:
            raise UnusableInput(
                f"{data.name} is a stream that does not say how long it is; give --epoch-size IMAGES"
            )
    else:
        length = len(data.train)  # type: ignore[arg-type]
    if length < settings.batch_size:
        raise UnusableInput(
            f"{data.name} has {length} training images, fewer than one batch of {settings.batch_size}; "
            f"give --batch-size {length} or less"
        )
    return length // settings.batch_size


def check_divisible(settings: DataSettings, processes: int) -> int:
    """Images of a micro-batch in one process.

    Raises UnusableInput where the batch cannot be cut evenly.
    """
    pieces = settings.accumulate * processes
    if settings.batch_size % pieces:
        raise UnusableInput(
            f"a batch of {settings.batch_size} images cannot be cut evenly among {processes} processes and "
            f"{settings.accumulate} micro-batches; give a multiple of {pieces}"
        )
    return settings.batch_size // pieces


def training_batches(
    data: Data, settings: DataSettings, size: int, epoch: int, first: int = 0, place: Place | None = None
) -> Iterator[list[Batch]]:
    """The micro-batches of one process, update by update, from update `first` of the epoch on."""
    place = place or Place()
    micro = check_divisible(settings, place.processes)
    updates = updates_per_epoch(data, settings)
    if data.is_stream:
        batches = _streamed(data, settings, size, epoch, first, place)
    else:
        length = len(data.train)  # type: ignore[arg-type]
        order = torch.randperm(length, generator=_generator(settings.seed, epoch)).tolist()
        chunk = micro * place.processes
        begin = first * settings.batch_size
        keys = [
            order[start + place.process * micro : start + (place.process + 1) * micro]
            for start in range(begin, updates * settings.batch_size, chunk)
        ]
        dataset = _Training(data, settings, size, epoch)
        batches = iter(
            DataLoader(
                dataset,
                batch_sampler=keys,
                num_workers=settings.workers,
                collate_fn=_together,
                generator=torch.Generator(),  # its seed is drawn from here, not from the run's own numbers
                pin_memory=torch.cuda.is_available(),
            )
        )
    for _ in range(first, updates):
        update = list(islice(batches, settings.accumulate))
        for batch in update:
            _check_corrupt(batch.corrupt, settings.corrupt if len(batch.labels) == micro else "fatal")
        if len(update) < settings.accumulate:
            raise UnusableInput(
                f"{data.name} ended after fewer than {updates} batches; give a smaller --epoch-size"
            )
        yield update


def validation_batches(
    samples: Samples,
    columns: tuple[str, str],
    size: int,
    batch_size: int,
    *,
    crop: float = 1.0,
    corrupt: str = "fatal",
    workers: int = 0,
    place: Place | None = None,
) -> Iterator[Batch]:
    """Every sample once, in order, the last batch smaller; with several processes each gets every n-th."""
    place = place or Place()
    mine = range(place.process, len(samples), place.processes)
    keys = [list(mine[start : start + batch_size]) for start in range(0, len(mine), batch_size)]
    loader = DataLoader(
        _Validation(samples, columns, size, crop),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_together,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        _check_corrupt(batch.corrupt, corrupt)
        yield batch


Item = tuple[Tensor | None, int, int, str]


class _Training(Dataset[Item]):
    """Crops that depend on seed, epoch and image; a corrupt image is skipped for the one behind it."""

    def __init__(self, data: Data, settings: DataSettings, size: int, epoch: int) -> None:
        self._samples: Any = data.train
        self._columns, self._settings, self._size, self._epoch = data.columns, settings, size, epoch

    def __getitem__(self, index: int) -> Item:
        corrupt = ""
        for further in range(len(self._samples)):
            place = (index + further) % len(self._samples)
            try:
                image, label = _sample(self._samples[place], self._columns, place)
                return cropped(image, self._settings, self._size, self._epoch, place), label, place, corrupt
            except CorruptImage as error:
                corrupt = corrupt or str(error)
        return None, -1, index, "not one of the training images can be read"


class _Validation(Dataset[Item]):
    def __init__(self, samples: Samples, columns: tuple[str, str], size: int, crop: float) -> None:
        self._samples, self._columns, self._size, self._crop = samples, columns, size, crop

    def __getitem__(self, index: int) -> Item:
        try:
            image, label = _sample(self._samples[index], self._columns, index)
            return central(image, self._size, self._crop), label, index, ""
        except CorruptImage as error:
            return None, -1, index, str(error)


def cropped(image: Any, settings: DataSettings, size: int, epoch: int, index: int) -> Tensor:
    """The image for training: a random crop, or as in validation where none is asked for."""
    if settings.min_crop >= 1:
        return central(image, size, settings.crop)
    seed = int(_generator(settings.seed, epoch, index).initial_seed())
    return random_crop(image, size, settings.min_crop, seed)


def _sample(value: Any, columns: tuple[str, str], index: int) -> tuple[Any, int]:
    image, label = (value[columns[0]], value[columns[1]]) if isinstance(value, dict) else value
    return decoded(image, f"number {index}"), int(label)


def _together(items: Sequence[Item]) -> Batch:
    kept = [(image, label, index) for image, label, index, _ in items if image is not None]
    corrupt = tuple(reason for *_, reason in items if reason)
    images = [image for image, _, _ in kept]
    return Batch(
        torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        torch.tensor([label for _, label, _ in kept], dtype=torch.int64),
        torch.tensor([index for _, _, index in kept], dtype=torch.int64),
        corrupt,
    )


def _streamed(
    data: Data, settings: DataSettings, size: int, epoch: int, first: int, place: Place
) -> Iterator[Batch]:
    """Micro-batches of a stream: every process reads on and keeps what is its own."""
    rows: Any = data.train
    seed = _generator(settings.seed, epoch).initial_seed() % 2**32
    rows = rows.shuffle(seed=seed, buffer_size=_SHUFFLED)
    micro = check_divisible(settings, place.processes)
    skipped: list[str] = []
    kept: list[Item] = []
    owed = 0  # places of corrupt images, which the next good one takes: all processes count alike
    position = first * settings.batch_size
    for row in rows.skip(position):
        if position // micro % place.processes == place.process:
            try:
                image, label = _sample(row, data.columns, position)
                crop = cropped(image, settings, size, epoch, position)
                kept += [(crop, label, position, "")] * (1 + owed)
                owed = 0
            except CorruptImage as error:
                skipped.append(str(error))
                _check_corrupt(tuple(skipped), settings.corrupt)
                owed += 1
        position += 1
        while len(kept) >= micro:
            batch = _together(kept[:micro])
            batch.corrupt = tuple(skipped)
            yield batch
            kept, skipped = kept[micro:], []


def _check_corrupt(reasons: tuple[str, ...], corrupt: str) -> None:
    """Raised here, not where images are read: that may be another process, which can hand on no exception."""
    if reasons and corrupt == "fatal":
        raise UnusableInput(f"{reasons[0]}; mend it, or leave such images out with --corrupt skip")


def _generator(*numbers: int) -> torch.Generator:
    """A generator that depends on all of the numbers."""
    import hashlib

    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _stated_length(stream: Any) -> int | None:
    info = getattr(stream, "info", None)
    splits = getattr(info, "splits", None) or {}
    split = splits.get(str(getattr(stream, "split", "")))
    return int(split.num_examples) if split is not None and split.num_examples else None
