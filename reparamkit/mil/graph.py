"""A Core ML program as plain data: inputs, constants as they are stored, operations in order, outputs.

Every value has a name. A constant is kept once, in the type in which the file stores it; operations refer to
constants and to each other's results by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

Constant = torch.Tensor | str | tuple[str, ...]

Shape = tuple[int | None, ...]
"""The length of each axis, None where the program leaves it open."""


@dataclass(frozen=True)
class Port:
    """A value that an operation makes, as the program declares it.

    Attributes:
        name: unique in the program.
        shape: None where nothing is declared, not even the rank.
        dtype: None for a text and for types that torch has not. Unsigned 16-bit and 32-bit integers are held
            in the next larger signed type, integers below 8 bits in 8.
    """

    name: str
    shape: Shape | None
    dtype: torch.dtype | None


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        kind: of the MIL operator, such as "conv".
        name: of the operation in the program.
        inputs: parameter -> names of the values that it gets; several for a parameter such as `values`.
        outputs: what it makes, in order.
        blocks: how many nested blocks it has (`cond` and `while_loop` have some).
    """

    kind: str
    name: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: tuple[Port, ...]
    blocks: int = 0


@dataclass(frozen=True)
class MilInput:
    """An input of the file.

    Attributes:
        name: as in the file.
        shape: its default, which it has to have unless `ranges` or `allowed` say otherwise.
        dtype: in which the program takes it.
        image: the colour layout of an image input ("RGB", "BGR" or "GRAYSCALE"), whose values are pixels from
            0 to 255 and whose axes are (1, channels, height, width); None for an array.
        ranges: smallest and largest length of each axis, inclusive, None for unbounded; None where fixed.
        allowed: the only shapes that it may have; None where they are not listed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    image: str | None = None
    ranges: tuple[tuple[int, int | None], ...] | None = None
    allowed: tuple[tuple[int, ...], ...] | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether Core ML would take a tensor of this shape."""
        if self.allowed is not None:
            return shape in self.allowed
        if self.ranges is None:
            return shape == self.shape
        return len(shape) == len(self.ranges) and all(
            low <= size and (high is None or size <= high)
            for size, (low, high) in zip(shape, self.ranges, strict=True)
        )


@dataclass(frozen=True)
class MilProgram:
    """A program with one function.

    Attributes:
        inputs: in the file's order.
        operations: in the order in which they are computed; constants are not among them.
        constants: name -> value as stored.
        outputs: in the file's order, without the class label of a classifier.
        labels: of a classifier's classes, in the order of its probabilities; empty for anything else.
        opset: 5 for iOS 15, 6 for iOS 16, 7 for iOS 17, 8 for iOS 18: definitions differ (`reshape`,
        `gather`).
    """

    inputs: tuple[MilInput, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Constant] = field(repr=False)
    outputs: tuple[str, ...]
    opset: int
    labels: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """How many operations of each kind there are, constants left out."""
        return Counter(operation.kind for operation in self.operations)
