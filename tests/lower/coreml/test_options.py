"""Options that make no sense are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.labels import check_fits, read_labels
from reparamkit.lower.coreml.options import TARGETS, CoreMlOptions, ImageInput
from reparamkit.lower.coreml.toolbox import coremltools


def test_every_target_is_one_of_coremltools() -> None:
    assert set(TARGETS) <= set(coremltools().target.__members__)
    assert CoreMlOptions(target="IOS18").target == "iOS18"
    assert CoreMlOptions(target="macos15").target == "macOS15"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"target": "iOS14"},
            r"'iOS14' is no Core ML deployment target of ML programs: it is one of iOS15, ",
        ),
        ({"target": ""}, "is no Core ML deployment target"),
        ({"precision": "int8"}, "the precision of a Core ML package is float32 or float16, not 'int8'"),
        ({"keep_float32": "auto"}, "can only be chosen where the precision is float16"),
        ({"keep_float32": ("stem",)}, "can only be chosen where the precision is float16"),
        ({"sizes": "free"}, "are flexible, fixed or shapes, not 'free'"),
        ({"sizes": ()}, "made of positive sizes"),
        ({"sizes": ((1, 3, 0, 4),)}, "made of positive sizes"),
        ({"sizes": ((1, 3, 4, 4), (1, 3, 4))}, "have the same number of axes"),
        ({"metadata": {"a": 1}}, "the metadata of a Core ML package are texts, not 'a': 1"),
    ],
)
def test_packages_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableInput, match=words):
        CoreMlOptions(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "cmyk"}, "is rgb, bgr or gray, not 'cmyk'"),
        ({"scale": 0}, "the scale of an image input is a positive number, not 0"),
        ({"scale": float("nan")}, "the scale of an image input is a positive number"),
        ({"std": (0.2, 0.0, 0.2)}, "the std of an image input is positive in every channel"),
        ({"mean": (0.1, 0.2)}, "the mean of an image input has 2 numbers, and the image 3 channels"),
        ({"mean": (0.1, 0.2, 0.3), "colour": "gray"}, "has 3 numbers, and the image 1 channels"),
        ({"mean": float("inf")}, "is made of finite numbers"),
    ],
)
def test_images_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableInput, match=words):
        ImageInput(**options)


def test_one_number_stands_for_every_channel() -> None:
    image = ImageInput(mean=(0.5,), std=0.25)  # type: ignore[arg-type]
    assert image.mean == (0.5, 0.5, 0.5)
    assert image.std == (0.25, 0.25, 0.25)
    assert ImageInput(colour="gray").mean == (0.0,)


def test_labels_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("crow\n raven \nEichelhäher\n", encoding="utf-8")
    assert read_labels(path) == ("crow", "raven", "Eichelhäher")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there are no labels in "),
        (b"a\n\nb\n", "label 2 in .* is empty"),
        (b"a\nb\na\n", "label 3 in .* is 'a', as label 1 is: Core ML gives a number per label"),
        (b"\xff\xfe\n", "it is no UTF-8 text"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UnusableInput, match=words):
        read_labels(path)


def test_a_file_of_labels_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"the labels cannot be read from .*: No such file"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([("a", (1, 2)), ("b", (1, 2))], "for a network with one output, and this one has 2: a, b"),
        (
            [("a", (1, 2, 7, 7))],
            r"one number per class for one sample, and the output's shape is \(1, 2, 7, 7\)",
        ),
        ([("a", (3, 2))], r"the output's shape is \(3, 2\)"),
        ([("a", (1, 3))], "there are 2 labels, and the network has 3 classes"),
    ],
)
def test_labels_that_do_not_fit_the_network(outputs: Any, words: str) -> None:
    with pytest.raises(UnusableInput, match=words):
        check_fits(("x", "y"), outputs)
    check_fits(("x", "y"), [("a", (1, 2))])
