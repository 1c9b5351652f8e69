"""The sizes that a package's input may have: fixed, a range for each axis, or some shapes.

An ML program needs an end for every range. An axis ends where the program says; where the program knows no
end, a batch ends at `MOST_SAMPLES` and any other axis at `TIMES_LARGER` times the example's size. It starts
at the program's own smallest size; but at 1 where that is the 2 that torch.export puts for "not 1", for a
batch and for an axis that is 1 in the example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reparamkit.compare.inputs.probes import NORMAL, Probe
from reparamkit.compare.inputs.sizes import DynamicAxes, Ranges
from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.options import Shape

MOST_SAMPLES = 64
TIMES_LARGER = 8

Size = int | tuple[int, int, str]
"""The size of an axis, or the smallest and the largest and the symbol of a free one."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of one input tensor.

    Attributes:
        example: the shape that is the default.
        axes: each axis, fixed or free.
        shapes: the shapes that it may have, where they are listed; the axes say nothing then.
    """

    example: Shape
    axes: tuple[Size, ...]
    shapes: tuple[Shape, ...] = ()

    def admits(self, shape: Shape) -> bool:
        """Whether an input of this shape is one that the package takes."""
        if self.shapes:
            return shape in self.shapes
        return len(shape) == len(self.axes) and all(
            size == axis if isinstance(axis, int) else axis[0] <= size <= axis[1]
            for size, axis in zip(shape, self.axes, strict=True)
        )

    def in_words(self) -> str:
        """For a report: "1..64x3x224x224"."""
        if len(self.shapes) > 1:
            return " or ".join(map(written, self.shapes))
        return "x".join(str(axis) if isinstance(axis, int) else f"{axis[0]}..{axis[1]}" for axis in self.axes)


def ranges_of(tensors: list[torch.Tensor], axes: DynamicAxes, ranges: Ranges) -> list[Sizes]:
    """The sizes of each input tensor with these axes free: flat tensor index -> axis -> symbol."""
    bounds: dict[str, tuple[int, int]] = {}
    for index, free in axes.items():
        for axis, symbol in free.items():
            low, high = bounds.get(symbol, (1, 2**31 - 1))
            ours = _bounds(tensors[index].shape[axis], axis, *ranges.get(symbol, (2, None)))
            bounds[symbol] = max(low, ours[0]), min(high, ours[1])
    listed = []
    for index, tensor in enumerate(tensors):
        free = axes.get(index, {})
        sizes: tuple[Size, ...] = tuple(
            (*bounds[free[axis]], free[axis]) if axis in free else size
            for axis, size in enumerate(tensor.shape)
        )
        listed.append(Sizes(tuple(tensor.shape), sizes))
    return listed


def _bounds(example: int, axis: int, low: int, high: int | None) -> tuple[int, int]:
    if low == 2 and (axis == 0 or example == 1):
        low = 1
    most = MOST_SAMPLES if axis == 0 else TIMES_LARGER * example
    return low, max(example, min(most, high if high is not None else most))


def check_listed(tensors: list[torch.Tensor], shapes: tuple[Shape, ...]) -> None:
    """Find out whether an input can have these shapes at all.

    Raises:
        UnusableInput: there are several inputs, or a shape has another number of axes.
    """
    if len(tensors) != 1:
        raise UnusableInput(
            f"shapes can be listed for a network with one input, and this one has {len(tensors)}"
        )
    rank = tensors[0].ndim
    for shape in shapes:
        if len(shape) != rank:
            raise UnusableInput(
                f"the shape {written(shape)} has {len(shape)} axes, and the network's input has {rank}"
            )


def input_shape(sizes: Sizes, ranges: Mapping[str, Any], ct: Any) -> Any:
    """What coremltools takes as the shape of an input; `ranges` holds the RangeDim of each symbol so far."""
    if len(sizes.shapes) > 1:
        return ct.EnumeratedShapes(
            shapes=[list(shape) for shape in sizes.shapes], default=list(sizes.example)
        )
    lengths = []
    for axis, size in zip(sizes.axes, sizes.example, strict=True):
        if isinstance(axis, int):
            lengths.append(axis)
            continue
        low, high, symbol = axis
        # Axes of one symbol are as long as each other, which coremltools knows by the object alone.
        if symbol not in ranges:
            ranges[symbol] = ct.RangeDim(lower_bound=low, upper_bound=high, default=size)  # type: ignore[index]
        lengths.append(ranges[symbol])
    return ct.Shape(shape=lengths)


def probe_of(shape: Shape, example: Shape, args: Any, kwargs: Any, seed: int) -> Probe:
    """Normal values of another shape for the only input."""
    changed = {axis: f"axis {axis}" for axis, size in enumerate(shape) if size != example[axis]}
    sizes = {symbol: shape[axis] for axis, symbol in changed.items()}
    return Probe(f"shape {written(shape)}", NORMAL, seed, args, kwargs, {0: changed}, sizes)


def written(shape: Shape) -> str:
    """A shape as a user writes it."""
    return "x".join(map(str, shape))
