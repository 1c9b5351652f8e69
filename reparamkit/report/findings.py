"""What there is to report, wherever it came from; the other files of this room only lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Verdict(Protocol):
    """The equivalence of two networks."""

    @property
    def passed(self) -> bool:
        """Whether they are the same function within the budget."""

    def summary(self) -> str:
        """One or two lines in words."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""


class File(Protocol):
    """A file that was written and verified."""

    @property
    def path(self) -> Any:
        """Where it lies."""

    @property
    def operators(self) -> Counter[str]:
        """What it holds."""

    @property
    def equivalence(self) -> Verdict:
        """The verdict on it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Steps that were left out."""

    @property
    def size(self) -> int | None:
        """In bytes; None if it is no longer there."""


class Folding(Protocol):
    """One fold."""

    @property
    def where(self) -> str:
        """The owning module's path."""

    @property
    def operators(self) -> dict[str, int]:
        """What was there before."""

    @property
    def layers(self) -> dict[str, str]:
        """Path -> description of what is there now."""

    @property
    def error(self) -> float:
        """Relative float64 error."""

    @property
    def captured_only(self) -> bool:
        """Whether that was seen at the captured size only."""

    @property
    def nodes(self) -> Sequence[str]:
        """The names of the operators that were there before."""


class Calling(Protocol):
    """One operator of a network."""

    @property
    def name(self) -> str:
        """Its own in the graph."""

    @property
    def operator(self) -> str:
        """Such as conv2d; `input` and `output` for the network's own."""

    @property
    def module(self) -> str:
        """The path of the module that calls it."""

    @property
    def layer(self) -> str:
        """Of a layer that a fold has put in, its path."""

    @property
    def reads(self) -> Sequence[str]:
        """The operators that it reads."""

    @property
    def shape(self) -> Sequence[int]:
        """Of its result; empty if that is not known."""

    @property
    def window(self) -> Sequence[int]:
        """Of a convolution."""

    @property
    def stride(self) -> Sequence[int]:
        """Of a convolution."""

    @property
    def dilation(self) -> Sequence[int]:
        """Of a convolution."""

    @property
    def channels(self) -> tuple[int, int] | None:
        """In and out, of a convolution or linear layer."""

    @property
    def groups(self) -> int:
        """Of a convolution."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""

    @property
    def kernel(self) -> Sequence[Sequence[float]]:
        """Of a large convolution, the mean magnitude of the weights at each place."""


class Outlined(Protocol):
    """A network, operator by operator."""

    @property
    def calls(self) -> Sequence[Calling]:
        """In order."""

    @property
    def parameters(self) -> int:
        """How many numbers its parameters are."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all of it."""

    @property
    def unread(self) -> Mapping[str, str]:
        """Operator -> why it is no affine map."""

    @property
    def apart(self) -> Sequence[tuple[str, str, str]]:
        """An operator, one that it reads, and why the two are not one affine map."""


class Refusing(Protocol):
    """One operator that stays."""

    @property
    def where(self) -> str:
        """The owning module's path."""

    @property
    def node(self) -> str:
        """Its name in the captured graph."""

    @property
    def operator(self) -> str:
        """Such as aten.batch_norm.default."""

    @property
    def reason(self) -> str:
        """Why, in words."""


class Piece(Protocol):
    """One part of a network that was taken part by part."""

    @property
    def where(self) -> str:
        """Its path."""

    @property
    def folded(self) -> bool:
        """Whether it was."""

    @property
    def reason(self) -> str:
        """Why not; or what of it stays beside the folded layers, and why."""

    @property
    def sizes(self) -> str:
        """Which sizes may vary."""


@dataclass(frozen=True)
class Report:
    """All findings on one network."""

    name: str
    sizes: str
    before: dict[str, int]
    after: dict[str, int]
    folds: Sequence[Folding]
    refusals: Sequence[Refusing]
    notes: Sequence[str]
    equivalence: Verdict | None = None
    files: Sequence[File] = ()
    undone: Sequence[Refusing] = ()
    parts: Sequence[Piece] = ()
    outlines: tuple[Outlined, Outlined] | None = None
    """The network before and after."""
    source_bytes: int | None = None
    """The size of the file that the network came from."""
    command: str = ""
    """What was typed."""
    versions: Mapping[str, str] = field(default_factory=dict)
    latency: Sequence[Mapping[str, Any]] = ()
    """The rows of `reparamkit bench` of this network."""
    bar: float = 1e-10
    """The relative float64 error that no fold may exceed."""

    def names_of(self, refusal: Refusing) -> list[str]:
        """The names that a refusal's operator may have in the outlines: in parts, behind the part's path."""
        parts = [part.where for part in self.parts if f"{refusal.where}.".startswith(f"{part.where}.")]
        return [refusal.node, *(f"{where}:{refusal.node}" for where in parts)]
