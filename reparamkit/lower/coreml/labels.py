"""The names of the classes, for a package that is a classifier.

Such a package says the label with the largest number (`classLabel`) and a number per label
(`classLabel_probs`). The numbers are the network's own: they are probabilities if the network ends with a
softmax, and else whatever it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput


def read_labels(given: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The labels: those given, or the lines of a file.

    Raises:
        UnusableInput: the file cannot be read as text, a label is empty, or one is there twice.
    """
    if isinstance(given, str | Path):
        try:
            labels = tuple(line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines())
        except OSError as error:
            raise UnusableInput(
                f"the labels cannot be read from {given}: {error.strerror or error}"
            ) from error
        except UnicodeDecodeError as error:
            raise UnusableInput(f"the labels cannot be read from {given}: it is no UTF-8 text") from error
        where = f" in {given}"
    else:
        labels, where = tuple(given), ""
    if not labels:
        raise UnusableInput(f"there are no labels{where}")
    first: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if not isinstance(label, str) or not label:
            raise UnusableInput(f"label {number}{where} is {'empty' if label == '' else 'no text'}")
        if label in first:
            raise UnusableInput(
                f"label {number}{where} is {label!r}, as label {first[label]} is: Core ML gives a number per "
                "label, so they have to differ"
            )
        first[label] = number
    return labels


def check_fits(labels: Sequence[str], outputs: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Find out whether a network with these outputs (name, shape of the example's) has these classes.

    Raises:
        UnusableInput: it has several outputs, or none of one number per class and sample.
    """
    if len(outputs) != 1:
        names = ", ".join(name for name, _ in outputs)
        raise UnusableInput(
            f"labels are for a network with one output, and this one has {len(outputs)}: {names}"
        )
    shape = outputs[0][1]
    classes = shape[-1] if shape else 0
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
        raise UnusableInput(
            "labels are for a network that gives one number per class for one sample, and the output's "
            f"shape is {shape}"
        )
    if classes != len(labels):
        raise UnusableInput(f"there are {len(labels)} labels, and the network has {classes} classes")


def classifier(labels: Sequence[str], output: str, ct: Any) -> Any:
    """What coremltools takes."""
    return ct.ClassifierConfig(list(labels), predicted_probabilities_output=output)
