"""Where images come from: one function for each kind of source, and the choice among them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reparamkit.errors import UnusableInput
from reparamkit.support.text import one_line
from reparamkit.training.config import DataSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SPLIT_SEED = 0  # which images are held back is not drawn anew with each seed: results stay comparable


class Samples(Protocol):
    """Images with labels: what `__getitem__` returns is a pair, or a mapping as datasets' rows are.

    An image is a PIL image, an array (H, W) or (H, W, C) of bytes, or datasets' mapping of a path or bytes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass
class Data:
    """Images for training and for validation.

    Attributes:
        name: as the user named it.
        classes: their names, in the order of the labels.
        train: samples, or for a stream an iterable of datasets' rows.
        valid: samples.
        mean, std: of the three channels, on a scale from 0 to 1: what normalises them.
        columns: where `train` and `valid` have rows, the names of image and label in them.
    """

    name: str
    classes: list[str]
    train: Samples | Iterable[Any]
    valid: Samples
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    columns: tuple[str, str] = ("image", "label")

    @property
    def is_stream(self) -> bool:
        return not hasattr(self.train, "__len__")


class Pairs:
    """Arrays of images and labels as samples."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        return self._images[index], int(self._labels[index])


class Subset:
    """Some of the samples, by index."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self._samples, self._indices = samples, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self._samples[self._indices[index]]


def open_data(settings: DataSettings) -> Data:
    """Open what `settings.data` names.

    Raises UnusableInput where there is nothing of that name, where it has no classes, or no images.
    """
    source = settings.data
    if source == "digits":
        data = _digits(settings.valid_share)
    elif Path(source).exists():
        data = _from_path(Path(source), settings)
    elif source.startswith("hf:"):
        data = _from_hub(source, settings)
    elif ":" in source:
        data = _from_callable(source, settings)
    else:
        raise UnusableInput(
            f"there are no data {source!r}: give digits, a folder of classes, a file, hf:NAME for a data set "
            "of the Hugging Face hub, or module:callable"
        )
    return checked(data)


def checked(data: Data) -> Data:
    """The data as they are.

    Raises UnusableInput for fewer than two classes, and for no images.
    """
    _check_several(data.classes, data.name)
    for split, samples in (("training", data.train), ("validation", data.valid)):
        if isinstance(samples, Sized) and len(samples) == 0:
            raise UnusableInput(f"{data.name} has no {split} images")
    return data


def _check_several(classes: list[str], name: str) -> None:
    if len(classes) < 2:
        count = "1 class" if classes else "no classes"
        raise UnusableInput(f"{name} has {count}, and there is nothing to tell apart")


def _digits(valid_share: float) -> Data:
    """scikit-learn's 1797 handwritten digits, 8x8 pixels of 17 greys (Alpaydin and Kaynak, 1998)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    train, valid = train_test_split(
        np.arange(len(images)), test_size=valid_share, random_state=_SPLIT_SEED, stratify=bunch.target
    )
    scaled = images[train] / 255
    mean, std = float(scaled.mean()), float(scaled.std())
    return Data(
        "digits",
        [str(name) for name in bunch.target_names],
        Pairs(images[train], bunch.target[train]),
        Pairs(images[valid], bunch.target[valid]),
        (mean, mean, mean),
        (std, std, std),
    )


def _from_path(path: Path, settings: DataSettings) -> Data:
    from reparamkit.training.data import hub

    if path.is_file():
        return _with_splits(hub.from_file(path, settings.stream), str(path), settings)
    if hub.is_saved(path):
        return _with_splits(hub.from_disk(path), str(path), settings)
    return _with_splits(hub.from_folder(path, settings.stream), str(path), settings)


def _from_hub(source: str, settings: DataSettings) -> Data:
    from reparamkit.training.data import hub

    return _with_splits(hub.from_hub(source.removeprefix("hf:"), settings.stream), source, settings)


def _from_callable(source: str, settings: DataSettings) -> Data:
    value = _called(source)
    if isinstance(value, Data):
        return value
    if isinstance(value, Mapping):
        return _with_splits(dict(value), source, settings)
    raise UnusableInput(
        f"{source} returned a {type(value).__name__}; it has to return a reparamkit.training.Data or a "
        "datasets.DatasetDict"
    )


def _with_splits(splits: Mapping[str, Any], name: str, settings: DataSettings) -> Data:
    """Training and validation samples of Hugging Face splits, one held back from the other if need be."""
    from reparamkit.training.data import hub

    train_name = "train" if "train" in splits else next(iter(splits))
    valid_name = next((other for other in hub.VALIDATION if other in splits and other != train_name), None)
    train, columns, classes = hub.described(splits[train_name], name)
    _check_several(classes, name)
    if valid_name is not None:
        valid, _, _ = hub.described(splits[valid_name], name, columns, classes)
        return Data(name, classes, train, valid, columns=columns)
    if settings.stream:
        raise UnusableInput(
            f"{name} has the split {train_name!r} alone; a stream needs one for validation beside it"
        )
    from sklearn.model_selection import train_test_split

    labels = np.asarray(train[columns[1]])
    try:
        kept, held = train_test_split(
            np.arange(len(labels)), test_size=settings.valid_share, random_state=_SPLIT_SEED, stratify=labels
        )
    except ValueError as error:
        raise UnusableInput(
            f"{name} has too few images to hold some of each class back for validation: {error}"
        ) from error
    return Data(name, classes, Subset(train, kept.tolist()), Subset(train, held.tolist()), columns=columns)


def _called(address: str) -> Any:
    """What ``module:callable`` returns when it is called without arguments.

    The current folder stays importable: processes that read images import the module too.
    Raises UnusableInput, with what went wrong, where it cannot be imported, found or called.
    """
    module_name, _, attribute = address.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            value = getattr(value, name)
        return value()
    except Exception as error:
        text = one_line(error)
        raise UnusableInput(f"{address!r}: {type(error).__name__}: {text}") from error
