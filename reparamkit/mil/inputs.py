"""Which inputs a Core ML file takes: from its description, together with what the program's function says.

Source: FeatureTypes.proto in coremltools.
"""

from __future__ import annotations

from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.mil.graph import MilInput
from reparamkit.mil.types import BY_NUMBER

_COLOURS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE"}
_CHANNELS = {"GRAYSCALE": 1, "RGB": 3, "BGR": 3}


def mil_input(feature: Any, declared: Any, where: str) -> MilInput:
    """One input.

    Args:
        feature: of the description.
        declared: the function's input of that name.
        where: the file, for messages.

    Raises:
        UnusableInput: it is neither an array nor an image.
        ValueError: description and program do not agree on its shape.
    """
    described = _input(feature, declared, where)
    sizes = [int(each.constant.size) for each in declared.type.tensorType.dimensions]
    fixed = [each.WhichOneof("dimension") == "constant" for each in declared.type.tensorType.dimensions]
    if len(sizes) != len(described.shape) or any(
        known and size != own for size, own, known in zip(sizes, described.shape, fixed, strict=True)
    ):
        raise ValueError(f"its description and its program give the input {feature.name!r} different shapes")
    return described


def _input(feature: Any, declared: Any, where: str) -> MilInput:
    name = feature.name
    if declared.type.WhichOneof("type") == "stateType":
        raise UnusableInput(
            f"cannot verify {where}: its input {name!r} is a state that is kept between calls"
        )
    kind = BY_NUMBER.get(declared.type.tensorType.dataType)
    what = feature.type.WhichOneof("Type")
    if kind is None or kind.dtype is None or what not in ("multiArrayType", "imageType"):
        raise UnusableInput(f"cannot verify {where}: its input {name!r} is neither an array nor an image")
    if what == "imageType":
        return _image(name, feature.type.imageType, kind.dtype)
    array = feature.type.multiArrayType
    shape = tuple(int(size) for size in array.shape)
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        listed = {tuple(int(size) for size in each.shape) for each in array.enumeratedShapes.shapes}
        listed.add(shape)
        return MilInput(name, shape, kind.dtype, allowed=tuple(sorted(listed)))
    if flexible == "shapeRange":
        ranges = tuple(_range(each) for each in array.shapeRange.sizeRanges)
        return MilInput(name, shape, kind.dtype, ranges=ranges)
    return MilInput(name, shape, kind.dtype)


def _image(name: str, image: Any, dtype: Any) -> MilInput:
    colour = _COLOURS.get(image.colorSpace, "RGB")
    lead = (1, _CHANNELS[colour])
    shape = (*lead, int(image.height), int(image.width))
    flexible = image.WhichOneof("SizeFlexibility")
    if flexible == "enumeratedSizes":
        listed = {(*lead, int(each.height), int(each.width)) for each in image.enumeratedSizes.sizes}
        return MilInput(name, shape, dtype, colour, allowed=tuple(sorted({shape, *listed})))
    if flexible == "imageSizeRange":
        sizes = image.imageSizeRange
        fixed = [(size, size) for size in lead]
        ranges = (*fixed, _range(sizes.heightRange), _range(sizes.widthRange))
        return MilInput(name, shape, dtype, colour, ranges=ranges)
    return MilInput(name, shape, dtype, colour)


def _range(bounds: Any) -> tuple[int, int | None]:
    return int(bounds.lowerBound), None if bounds.upperBound < 0 else int(bounds.upperBound)
