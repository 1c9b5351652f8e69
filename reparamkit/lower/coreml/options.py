"""What a Core ML package is to be: its deployment target, its precision, its input, its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput

TARGETS = (
    *("iOS15", "iOS16", "iOS17", "iOS18", "iOS26"),
    *("macOS12", "macOS13", "macOS14", "macOS15", "macOS26"),
    *("tvOS15", "tvOS16", "tvOS17", "tvOS18", "tvOS26"),
    *("watchOS8", "watchOS9", "watchOS10", "watchOS11", "watchOS26"),
)
"""Deployment targets that run ML programs; those of one row are named after the systems of one year."""

COLOURS = {"rgb": 3, "bgr": 3, "gray": 1}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ImageInput:
    """An image of values 0 to 255 as the input; the network is fed (pixels / scale − mean) / std.

    Attributes:
        scale: what the pixels are divided by.
        mean, std: one number per channel, in the order in which the network takes its channels, or one for
            all of them.
        colour: the order of the channels that the network takes: "rgb", "bgr", or "gray" for one channel.

    Raises:
        UnusableInput: a number that is not finite, a scale or std that is not positive, another colour, or a
            mean or std that does not fit the number of channels.
    """

    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    colour: str = "rgb"

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise UnusableInput(f"the colour of an image input is rgb, bgr or gray, not {self.colour!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(name, getattr(self, name), self.channels))
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UnusableInput(f"the scale of an image input is a positive number, not {self.scale}")
        if any(value <= 0 for value in self.std):
            raise UnusableInput(f"the std of an image input is positive in every channel, not {self.std}")

    @property
    def channels(self) -> int:
        """How many channels the image has."""
        return COLOURS[self.colour]


@dataclass(frozen=True)
class CoreMlOptions:
    """How a network becomes a Core ML package (an ML program).

    Attributes:
        target: the oldest system that is to run it: one of `TARGETS`, in any case.
        precision: "float32", the default, because it computes what the network computes; or "float16", which
            halves the file and is what the Neural Engine computes in, at the price of its rounding errors.
            Inputs and outputs are float32 (or int32) either way.
        image: the input is an image.
        sizes: "flexible" leaves free what the folded network leaves free, within the bounds of
            `reparamkit.lower.coreml.shapes`; "fixed" is the example's size; or the shapes of the only input:
            one is a fixed size, several are enumerated, the first of them the default.
        labels: the name of each class, or a file with one per line: the package is a classifier.
        keep_float32: in float16, what is computed in float32 all the same: "none", "auto", or patterns of
            module paths (as in a shell; a path stands for everything below it).
        metadata: further entries, key -> text.

    Raises:
        UnusableInput: an unknown target or precision, or options that contradict each other.
    """

    target: str = "iOS17"
    precision: str = "float32"
    image: ImageInput | None = None
    sizes: str | tuple[Shape, ...] = "flexible"
    labels: str | Path | tuple[str, ...] | None = None
    keep_float32: str | tuple[str, ...] = "none"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {name.lower(): name for name in TARGETS}
        if str(self.target).lower() not in known:
            raise UnusableInput(
                f"{self.target!r} is no Core ML deployment target of ML programs: it is one of "
                + ", ".join(TARGETS)
            )
        object.__setattr__(self, "target", known[str(self.target).lower()])
        if self.precision not in ("float32", "float16"):
            raise UnusableInput(
                f"the precision of a Core ML package is float32 or float16, not {self.precision!r}"
            )
        if isinstance(self.keep_float32, str) and self.keep_float32 not in ("none", "auto"):
            object.__setattr__(self, "keep_float32", (self.keep_float32,))
        if self.keep_float32 != "none" and self.precision != "float16":
            raise UnusableInput("what to keep in float32 can only be chosen where the precision is float16")
        object.__setattr__(self, "sizes", _sizes(self.sizes))
        if isinstance(self.labels, list):
            object.__setattr__(self, "labels", tuple(self.labels))
        for key, text in self.metadata.items():
            if not (isinstance(key, str) and isinstance(text, str)):
                raise UnusableInput(f"the metadata of a Core ML package are texts, not {key!r}: {text!r}")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that were asked for; empty for "flexible" and "fixed"."""
        return () if isinstance(self.sizes, str) else self.sizes


def _per_channel(name: str, given: Any, channels: int) -> tuple[float, ...]:
    values = (given,) if isinstance(given, int | float) else tuple(given)
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise UnusableInput(
            f"the {name} of an image input has {len(values)} numbers, and the image {channels} channels"
        )
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise UnusableInput(f"the {name} of an image input is made of finite numbers, not {values}")
    return tuple(float(value) for value in values)


def _sizes(given: Any) -> str | tuple[Shape, ...]:
    if isinstance(given, str):
        if given not in ("flexible", "fixed"):
            raise UnusableInput(
                f"the sizes of a Core ML package are flexible, fixed or shapes, not {given!r}"
            )
        return given
    shapes = tuple(tuple(int(size) for size in shape) for shape in given)
    if not shapes or any(size < 1 for shape in shapes for size in shape):
        raise UnusableInput("the shapes of a Core ML package's input are made of positive sizes")
    if len({len(shape) for shape in shapes}) > 1:
        raise UnusableInput("the shapes of a Core ML package's input have the same number of axes")
    return tuple(dict.fromkeys(shapes))
