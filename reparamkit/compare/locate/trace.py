"""One run of a network with everything that it computed on the way: values, and what each was made from."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from reparamkit.compare.locate.sketch import Sketch
from reparamkit.support.inputs import Args, Kwargs

_PASSING = frozenset(
    {
        *("clone", "detach", "alias", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten"),
        *("expand", "permute", "transpose", "t", "contiguous", "Identity", "Reshape", "Flatten", "Squeeze"),
        *("Unsqueeze", "Transpose", "Expand", "input"),
    }
)


@dataclass(frozen=True)
class Value:
    """One tensor that depends on the network's input.

    Attributes:
        place: the path of the module that computed it; "" where that is not known.
        node: how the graph calls what computed it; "" where there is no graph.
        operator: "convolution", "Conv", …; "input" for an input.
        parents: the values that it was computed from, by index.
        shape: its own.
        heavy: it is a product with weights: a convolution, a linear layer.
        sketch: None where it cannot be compared.
    """

    place: str
    node: str
    operator: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    heavy: bool
    sketch: Sketch | None

    @property
    def passes(self) -> bool:
        """It hands on what it is given, in another shape at most."""
        return self.operator in _PASSING

    @property
    def label(self) -> str:
        """What to call it: operator and node, or the module where there is no graph."""
        if self.operator == "input":
            return "the network's input"
        name = self.node if self.node else self.place
        return f"{self.operator} {name}" if name else self.operator


@dataclass
class Trace:
    """The values of a run in the order in which they were computed, and which of them are its outputs."""

    values: list[Value] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def before(self, ends: Iterable[int], stops: Collection[int]) -> set[int]:
        """All values that `ends` were computed from, and they themselves, going back no further than `stops`.

        The stops are not among them; inputs are.
        """
        ancestors: set[int] = set()
        pending = [end for end in ends if end not in stops]
        while pending:
            index = pending.pop()
            if index not in ancestors:
                ancestors.add(index)
                pending += [parent for parent in self.values[index].parents if parent not in stops]
        return ancestors

    def behind(self, start: int) -> set[int]:
        """All values that depend on this one, without it."""
        descendants = {start}
        for index in range(start + 1, len(self.values)):
            if any(parent in descendants for parent in self.values[index].parents):
                descendants.add(index)
        return descendants - {start}


class Tracer(Protocol):
    """A network whose inside can be looked at."""

    def expect(self, largest: int) -> None:
        """Values have up to so many elements: what is held at once is to be chosen by that."""
        ...

    def trace(self) -> Trace:
        """Run it on the probe."""
        ...

    def tensors(self, indices: Collection[int]) -> dict[int, torch.Tensor]:
        """Some of the values of the same run, in full."""
        ...

    def replaced(
        self, index: int, tensor: torch.Tensor, wanted: Collection[int]
    ) -> Mapping[int, Sketch | None]:
        """Run it with one value replaced by this tensor of the same number of elements.

        Returns:
            The sketches of the values wanted, all of them behind the one that is replaced.
        """
        ...


class TookTooLong(Exception):
    """The time for looking is used up."""


class NotTraceable(Exception):
    """The inside of a network cannot be looked at; the text says why."""


@dataclass(frozen=True)
class Clock:
    """When to stop."""

    deadline: float

    @classmethod
    def of(cls, seconds: float) -> Clock:
        return cls(time.monotonic() + seconds)

    def check(self) -> None:
        """Raises `TookTooLong` once the time is used up."""
        if time.monotonic() > self.deadline:
            raise TookTooLong


Inputs = tuple[Args, Kwargs]
