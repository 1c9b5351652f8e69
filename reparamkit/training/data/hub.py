"""Images through Hugging Face datasets: folders, files, saved data sets, names of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from reparamkit.errors import UnusableInput
from reparamkit.support.text import one_line

VALIDATION = ("validation", "valid", "val", "test", "dev", "eval")
_BUILDERS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tar": "webdataset",
}
_LABELS = ("label", "labels", "class", "cls", "fine_label", "target")


def from_folder(path: Path, stream: bool) -> dict[str, Any]:
    """Splits of a folder of classes, or of a folder of a training and a validation folder of classes.

    Raises UnusableInput where there is no class.
    """
    folders = {entry.name: entry for entry in path.iterdir() if entry.is_dir()}
    if "train" in folders:
        valid = next((folders[name] for name in VALIDATION if name in folders), None)
        splits = {"train": folders["train"]} | ({"valid": valid} if valid is not None else {})
    else:
        splits = {"train": path}
    for folder in splits.values():
        if not any(entry.is_dir() for entry in folder.iterdir()):
            raise UnusableInput(
                f"{folder} has no classes: give it one folder of images for each class, "
                f"such as {folder}/cat/1.jpg and {folder}/dog/1.jpg"
            )
    files = {name: str(folder / "**") for name, folder in splits.items()}
    return dict(_loaded(str(path), "imagefolder", data_files=files, streaming=stream, drop_labels=False))


def from_file(path: Path, stream: bool) -> dict[str, Any]:
    """The rows of one file, as the split "train".

    Raises UnusableInput for a suffix that is not known.
    """
    builder = _BUILDERS.get(path.suffix)
    if builder is None:
        raise UnusableInput(f"{path}: images are read from {', '.join(_BUILDERS)} files or from a folder")
    return dict(_loaded(str(path), builder, data_files={"train": str(path)}, streaming=stream))


def is_saved(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` wrote."""
    return (path / "dataset_dict.json").exists() or (path / "state.json").exists()


def from_disk(path: Path) -> dict[str, Any]:
    """Splits of what `save_to_disk` wrote."""
    loaded = datasets.load_from_disk(str(path))
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def from_hub(name: str, stream: bool) -> dict[str, Any]:
    """Splits of the data set ``NAME`` or ``NAME:CONFIGURATION`` of the hub."""
    dataset, _, configuration = name.partition(":")
    return dict(_loaded(name, dataset, configuration or None, streaming=stream))


def described(
    split: Any, name: str, columns: tuple[str, str] | None = None, classes: list[str] | None = None
) -> tuple[Any, tuple[str, str], list[str]]:
    """A split with its images not decoded yet, the columns of image and label, and the classes.

    Labels that are texts or bare numbers become classes, in their order. `columns` and `classes` are those
    of the training split.

    Raises UnusableInput where there is no column of images or of labels.
    """
    features = split.features
    if features is None:
        raise UnusableInput(f"{name} does not say which columns it has")
    image, label = columns or _columns(features, name)
    split = split.cast_column(image, datasets.Image(decode=False))
    kind = split.features[label]
    if not isinstance(kind, datasets.ClassLabel):
        if isinstance(split, datasets.IterableDataset):
            raise UnusableInput(f"{name}: the column {label!r} of a stream has to be of datasets' ClassLabel")
        if classes is None:
            split = split.class_encode_column(label)
        else:
            split = split.cast_column(label, datasets.ClassLabel(names=classes))
        kind = split.features[label]
    names = [str(entry) for entry in kind.names]
    if classes is not None and names != classes:
        raise UnusableInput(f"{name}: training and validation images have other classes")
    return split, (image, label), names


def _columns(features: Any, name: str) -> tuple[str, str]:
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels += [column for column in _LABELS if column in features and column not in labels]
    if not images or not labels:
        what = "images" if not images else "labels"
        raise UnusableInput(f"{name} has no column of {what}; its columns are {', '.join(features)}")
    return images[0], labels[0]


def _loaded(name: str, *arguments: Any, **options: Any) -> Any:
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # each builder has errors of its own
        text = one_line(error)
        raise UnusableInput(f"datasets cannot open {name}: {text}") from error
