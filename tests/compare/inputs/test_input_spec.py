"""Inputs in words."""

from __future__ import annotations

import pytest
import torch

from reparamkit.compare.inputs import patterns
from reparamkit.compare.inputs.input_spec import Described, Kind, examples, parse
from reparamkit.errors import UnusableInput


@pytest.mark.parametrize(
    ("text", "name", "shape", "dtype", "kind"),
    [
        ("1x3x224x224", "", (1, 3, 224, 224), torch.float32, "normal"),
        (" 1X3 x 8×8", "", (1, 3, 8, 8), torch.float32, "normal"),
        ("7", "", (7,), torch.float32, "normal"),
        ("image:1x3x8x8", "image", (1, 3, 8, 8), torch.float32, "normal"),
        ("image:1x3x8x8:float32:normal", "image", (1, 3, 8, 8), torch.float32, "normal"),
        ("1x3x8x8:float16", "", (1, 3, 8, 8), torch.float16, "normal"),
        ("x:1x3x8x8:uint8:image", "x", (1, 3, 8, 8), torch.uint8, "image"),
        ("x:1x3x8x8:uint8", "x", (1, 3, 8, 8), torch.uint8, "image"),
        ("x:1x3x8x8:image", "x", (1, 3, 8, 8), torch.float32, "image"),
        ("ids:1x77:int64:0..999", "ids", (1, 77), torch.int64, "0..999"),
        ("1x77:int32:-5..5", "", (1, 77), torch.int32, "-5..5"),
        ("t:1:0..1e3", "t", (1,), torch.float32, "0..1e3"),
        ("mask:1x77:bool:mask", "mask", (1, 77), torch.bool, "mask"),
        ("1x77:bool", "", (1, 77), torch.bool, "mask"),
        ("m:1x77:mask", "m", (1, 77), torch.bool, "mask"),
        ("m:1x77:float32:mask", "m", (1, 77), torch.float32, "mask"),
        ("input:0:1x3x8x8:float32", "input:0", (1, 3, 8, 8), torch.float32, "normal"),
    ],
)
def test_forms(text: str, name: str, shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> None:
    (found,) = parse([text])
    assert (found.name, found.shape, found.dtype, found.kind.name) == (name, shape, dtype, kind)
    assert found.stated == (str(dtype)[6:] in text)
    example = found.example(0, 0)
    assert (tuple(example.shape), example.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not a shape"),
        ("0x3", "a size of 0 shows nothing; say 1x3"),
        ("1x-3", "is not a shape"),
        ("1x3x", "the sizes of all axes go with x between them; say 1x3"),
        ("image", "'image' is not a shape"),
        ("x:1x3:float31", "'float31' is no type here; say x:1x3:float32"),
        ("1x3:normal:float32", "the type goes before the kind; say 1x3:float32:normal"),
        ("1x77:int64", "integers need a range that makes sense, such as 1x77:int64:0..999"),
        ("1x77:int64:normal", "normal values are floating point"),
        ("1x77:int64:9..1", "the range 9..1 is empty"),
        ("1x77:uint8:0..256", "the range 0..256 does not fit into uint8"),
        ("1x77:int64:0.5..2", "does not fit into int64"),
        ("1x77:bool:0..1", "a bool input holds a mask, nothing else"),
        ("1x77:bool:normal", "normal values are floating point"),
    ],
)
def test_what_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(UnusableInput) as error:
        parse([text])
    assert words in str(error.value)
    assert repr(text) in str(error.value)


def test_two_of_one_name() -> None:
    with pytest.raises(UnusableInput, match="the input 'x' is described twice"):
        parse(["x:1x2", "x:1x3"])


def test_an_input_that_fits_into_no_memory() -> None:
    (huge,) = parse(["99999999x99999999x99999"])
    with pytest.raises(UnusableInput, match="does not fit into memory"):
        huge.example(0, 0)


def test_draws_are_reproducible_and_differ() -> None:
    left, right = parse(["4x50", "4x50"])
    assert torch.equal(left.example(3, 0), left.example(3, 0))
    assert not torch.equal(left.example(3, 0), right.example(3, 1))
    assert not torch.equal(left.example(3, 0), left.example(4, 0))


ALL = (
    *(patterns.NORMAL, patterns.LARGE, patterns.TINY, patterns.CONSTANT, patterns.NEGATIVE),
    *(patterns.CHECKERBOARD, patterns.IMPULSES, *patterns.impulses(2)),
)


@pytest.mark.parametrize("how", ALL)
def test_values_keep_to_their_bounds(how: str) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = Kind("3..9", 3, 9).draw(how, [2, 3, 20, 20], torch.int64, generator)
    assert 3 <= int(numbers.min()) <= int(numbers.max()) <= 9
    fractions = Kind("0.5..2", 0.5, 2).draw(how, [2, 3, 20, 20], torch.float32, generator)
    assert 0.5 <= float(fractions.min()) <= float(fractions.max()) <= 2
    mask = Kind("mask", 0, 1).draw(how, [2, 3, 20, 20], torch.bool, generator)
    assert bool(mask.any())


def test_ranges_are_used_to_their_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Kind("3..9", 3, 9).draw(patterns.NORMAL, [1000], torch.int64, generator)
    assert set(drawn.tolist()) == set(range(3, 10))
    ends = Kind("3..9", 3, 9).draw(patterns.LARGE, [1000], torch.int64, generator)
    assert set(ends.tolist()) == {3, 9}
    image = Kind("image", 0, 255).draw(patterns.NORMAL, [10000], torch.uint8, generator)
    assert {0, 255} <= set(image.tolist())


def test_images_of_floating_point_bound_the_example_only() -> None:
    (image, pixels, ids) = parse(["1x3x8x8:image", "1x3x8x8:uint8", "1x9:int64:0..9"])
    assert image.bounded is None
    assert 0 <= float(image.example(0, 0).min()) <= float(image.example(0, 0).max()) <= 1
    assert pixels.bounded == Kind("image", 0.0, 255.0)
    assert ids.bounded == Kind("0..9", 0.0, 9.0)
    assert Described("", (1,), torch.float32, Kind("0..1", 0, 1)).bounded is not None


def test_examples_by_place_or_by_name() -> None:
    described = parse(["1x3x4x4", "2x5:int64:0..3"])
    image, ids = examples(described)
    assert isinstance(image, torch.Tensor)
    assert isinstance(ids, torch.Tensor)
    assert (image.shape, ids.dtype) == ((1, 3, 4, 4), torch.int64)
    named = examples(parse(["image:1x3x4x4", "ids:2x5:int64:0..3"]))
    assert isinstance(named, dict)
    assert list(named) == ["image", "ids"]
    assert torch.equal(named["image"], image)
    with pytest.raises(UnusableInput, match=r"'image' is described by name and another by place: name all"):
        examples(parse(["image:1x3x4x4", "2x5:int64:0..3"]))
