"""`validate`: networks and files side by side, on the same images.

All of them see each batch before the next one is read, so they are compared on the very same pixels and
what slows the machine down slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.support.text import one_line
from reparamkit.training.answers import RealLabels, valid_labels
from reparamkit.training.augment import normalised
from reparamkit.training.config import DataSettings
from reparamkit.training.data import Data, open_data, validation_batches
from reparamkit.training.metrics import Counts
from reparamkit.training.subjects import Validated, open_validated, try_folded
from reparamkit.training.validation_images import check_labels


@dataclass(frozen=True)
class Difference:
    """An image on which a network decides otherwise than the first one; classes by name."""

    image: str
    label: str
    reference: str
    prediction: str


@dataclass(frozen=True)
class ValidationRow:
    """Results of one network; shares from 0 to 1, `differing` against the first row."""

    name: str
    runner: str
    images: int
    top1: float
    top5: float
    loss: float
    calibration_error: float
    images_per_second: float
    differing: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Validation:
    """What `validate` found out: one row for each network, and what else there is to say."""

    data: str
    rows: tuple[ValidationRow, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `--json` writes it."""
        rows = [
            {name: value for name, value in vars(row).items() if name != "differing"}
            | {"differ": len(row.differing), "differing": [vars(one) for one in row.differing]}
            for row in self.rows
        ]
        return {"data": self.data, "rows": rows, "notes": list(self.notes)}


@dataclass
class _Tally:
    """Sums of one network while the images go by."""

    entry: Validated
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    right: np.ndarray[Any, Any] = field(
        default_factory=lambda: np.zeros(3)
    )  # real labels: counted, top-1, top-5
    differing: list[Difference] = field(default_factory=list)


def validate(
    subjects: str | Path | nn.Module | Sequence[str | Path | nn.Module],
    data: str | Data = "digits",
    *,
    fold: bool = True,
    weights: str | None = None,
    model: str | None = None,
    model_args: str | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    real_labels: Path | None = None,
    valid: Path | None = None,
    say: Any = lambda text: None,
    **settings: Any,
) -> Validation:
    """Hold networks and files against labelled images.

    Args:
        subjects: checkpoints' folders, names of networks, modules, and files that `reparamkit check` runs.
        data: as in `train`; its validation images are used.
        fold: beside every network of torch's, validate what it folds to.
        weights: of checkpoints, "raw" or "ema".
        model, model_args, key, trust_pickle: as in `reparamkit.load`.
        real_labels: several right classes for each image (`reparamkit.training.answers`).
        valid: which of the network's classes the data has.
        say: is told what happens.
        settings: `batch_size`, `input_size`, `crop`, `corrupt`, `workers`, `valid_share` as in `Config`.

    Raises:
        UnusableInput: something cannot be opened, or does not fit the others or the data.
        NotEquivalent: a folded network is not the same function.
    """
    given = [subjects] if isinstance(subjects, str | Path | nn.Module) else list(subjects)
    if not given:
        raise UnusableInput("there is nothing to validate: give a network, a checkpoint's folder or a file")
    entries = []
    for one in given:
        say(f"opening {one if isinstance(one, str | Path) else type(one).__name__}")
        entries.append(
            open_validated(
                one,
                weights=weights,
                model=model,
                model_args=model_args,
                key=key,
                trust_pickle=trust_pickle,
            )
        )
    named = {"data": data} if isinstance(data, str) else {}
    chosen = DataSettings.resolve(None, **(_as_trained(entries) | named | _given(settings)))
    images = data if isinstance(data, Data) else open_data(chosen)
    size = _size(entries, chosen)
    mean, std = _normalisation(entries, images)
    beside: list[Validated] = []
    for entry in entries:
        beside.append(entry)
        if fold and entry.module is not None:
            say(f"folding {entry.name}")
            other = try_folded(entry, size)
            beside += [other] if other is not None else []
    classes = valid_labels(valid, len(images.classes)) if valid is not None else None
    real = RealLabels(real_labels) if real_labels is not None else None
    tallies = [_Tally(entry) for entry in beside]
    skipped: dict[str, None] = {}
    say(f"validating {len(images.valid)} images")
    for batch in validation_batches(
        images.valid,
        images.columns,
        size,
        chosen.batch_size,
        crop=chosen.crop,
        corrupt=chosen.corrupt,
        workers=chosen.workers,
    ):
        skipped |= dict.fromkeys(batch.corrupt)
        if len(batch.labels):
            check_labels(batch.labels, images)
            _one_batch(tallies, batch.images, batch.labels, batch.indices, images, mean, std, classes, real)
    notes = [note for entry in beside for note in entry.notes]
    notes += [f"skipped: {reason}" for reason in skipped]
    if real is not None:
        notes.append("top-1 and top-5 by the real labels; loss and calibration by the data's own")
    return Validation(images.name, tuple(_row(tally, real is not None) for tally in tallies), tuple(notes))


def _one_batch(
    tallies: list[_Tally],
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    data: Data,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: list[int] | None,
    real: RealLabels | None,
) -> None:
    pixels = images.float()
    x = normalised(pixels / 255, mean, std)
    reference: Tensor | None = None
    for tally in tallies:
        entry = tally.entry
        fed = pixels if entry.takes_pixels else x
        started = time.perf_counter()
        logits = _predicted(entry, fed)
        tally.seconds += time.perf_counter() - started
        logits = _of_classes(logits, classes, len(data.classes), entry.name)
        tally.counts.add(logits, labels)
        if real is not None:
            _count_real(tally, logits, indices, data, real)
        decisions = logits.argmax(1)
        if reference is None:
            reference = decisions
        for place in (decisions != reference).nonzero().flatten().tolist():
            names = (data.classes[int(each[place])] for each in (labels, reference, decisions))
            tally.differing.append(Difference(_image_name(data, int(indices[place])), *names))


def _predicted(entry: Validated, x: Tensor) -> Tensor:
    try:
        return entry.predict(x)
    except UnusableInput:
        raise
    except Exception as error:  # each back end has errors of its own
        text = one_line(error)
        raise UnusableInput(
            f"{entry.name} does not run on images of {'x'.join(map(str, x.shape))}: {text}; "
            "give the size it takes with --input-size"
        ) from error


def _of_classes(logits: Tensor, classes: list[int] | None, num_classes: int, name: str) -> Tensor:
    if classes is not None and max(classes) < logits.shape[1]:
        return logits[:, classes]
    if classes is not None or logits.shape[1] != num_classes:
        hint = "; --valid-labels says which of them the data has" if logits.shape[1] > num_classes else ""
        raise UnusableInput(
            f"{name} tells {logits.shape[1]} classes apart and the data has {num_classes}{hint}"
        )
    return logits


def _count_real(tally: _Tally, logits: Tensor, indices: Tensor, data: Data, real: RealLabels) -> None:
    best = logits.topk(min(5, logits.shape[1]), 1).indices.tolist()
    for row, index in zip(best, indices.tolist(), strict=True):
        right = set(real.of(index, _file_name(data, index)))
        if right:
            tally.right += np.array([1, row[0] in right, bool(right & set(row))])


def _file_name(data: Data, index: int) -> str | None:
    samples: Any = data.valid
    value = samples[index]
    image = value[data.columns[0]] if isinstance(value, dict) else None
    path = image.get("path") if isinstance(image, dict) else None
    return str(path) if path else None


def _image_name(data: Data, index: int) -> str:
    return _file_name(data, index) or f"number {index}"


def _row(tally: _Tally, real: bool) -> ValidationRow:
    scores = tally.counts.scores()
    counted, top1, top5 = tally.right if real else (1.0, scores.top1, scores.top5)
    share = 1 / counted if counted else float("nan")
    return ValidationRow(
        tally.entry.name,
        tally.entry.runner,
        scores.images,
        float(top1 * share),
        float(top5 * share),
        scores.loss,
        scores.calibration_error,
        scores.images / tally.seconds if tally.seconds else float("nan"),
        tuple(tally.differing),
    )


def _as_trained(entries: list[Validated]) -> dict[str, Any]:
    """How the images were prepared for the first network that says so."""
    about = next((entry.about for entry in entries if entry.about is not None), None)
    return {} if about is None else {"crop": about.crop, "valid_share": about.valid_share}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _size(entries: list[Validated], settings: DataSettings) -> int:
    """The side of the images: the one asked for, else the first that a network says."""
    if settings.input_size is not None:
        return settings.input_size
    return next((entry.size for entry in entries if entry.size is not None), 224)


def _normalisation(entries: list[Validated], data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the networks were trained with; the data's own where none says.

    Raises UnusableInput where they were trained with different ones.
    """
    known = {
        (tuple(entry.about.mean), tuple(entry.about.std)): entry.name for entry in entries if entry.about
    }
    if len(known) > 1:
        first, second = list(known.values())[:2]
        raise UnusableInput(
            f"{first} and {second} were trained on images that are normalised in different ways; validate "
            "them one by one"
        )
    return next(iter(known), (data.mean, data.std))
