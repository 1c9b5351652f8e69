"""Which answer is right: labels of the data, several labels for an image, a part of the classes.

*Real labels* are a JSON file: a list with one list of classes for each validation image, in order (for files
named ``ILSVRC2012_val_00000001.JPEG`` by that number, as Beyer et al. released them, arXiv:2006.07159), or a
mapping of file names to such lists. An image is right where one of its classes is predicted; one without
classes does not count.

*Valid labels* are a text file with a class index on each line: class k of the data is the network's class on
line k, and the other logits are left out (ImageNet-A and -R have 200 of the 1000 classes).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput

_IMAGENET = re.compile(r"ILSVRC2012_val_(\d{8})")


class RealLabels:
    """Several right classes for an image."""

    def __init__(self, file: Path) -> None:
        self._file = file
        loaded = _json(file)
        entries: Any = loaded.values() if isinstance(loaded, dict) else loaded
        if not isinstance(loaded, dict | list) or not all(
            isinstance(classes, list) and all(isinstance(one, int) for one in classes) for classes in entries
        ):
            raise UnusableInput(
                f"the real labels {file} have to be a list, or a mapping, of lists of class indices"
            )
        self._classes: dict[str, list[int]] | list[list[int]] = loaded

    def of(self, index: int, name: str | None) -> list[int]:
        """The right classes of validation image `index`, whose file is called `name`, if it has one.

        Raises UnusableInput for an image that the file does not know.
        """
        stem = Path(name).name if name else None
        known: list[int] | None
        if isinstance(self._classes, dict):
            known = self._classes.get(stem or str(index))
        else:
            numbered = _IMAGENET.match(stem or "")
            place = int(numbered[1]) - 1 if numbered else index
            known = self._classes[place] if 0 <= place < len(self._classes) else None
        if known is None:
            raise UnusableInput(f"the real labels {self._file} have nothing of image {stem or index}")
        return known


def valid_labels(file: Path, num_classes: int) -> list[int]:
    """The network's class for each class of the data.

    Raises UnusableInput where the file cannot be read, or has another number of lines than classes.
    """
    try:
        classes = [int(line) for line in file.read_text(encoding="utf-8").split()]
    except OSError as error:
        raise UnusableInput(f"the valid labels {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UnusableInput(f"the valid labels {file} have to be one class index a line: {error}") from error
    if len(classes) != num_classes:
        raise UnusableInput(
            f"the valid labels {file} are {len(classes)} classes, and the data has {num_classes}"
        )
    if len(set(classes)) != len(classes) or min(classes) < 0:
        raise UnusableInput(f"the valid labels {file} have to be different class indices from 0 on")
    return classes


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(f"the real labels {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UnusableInput(f"the real labels {file} are no JSON: {error}") from error
