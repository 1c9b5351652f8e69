"""One way to compute a value: a sum of affine maps of others, and the table of all that are known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reparamkit.algebra import Map, Numbers, Scalar
from reparamkit.engine import cost
from reparamkit.engine.graph import Alternative, Node
from reparamkit.operators import Move

Maps = tuple[tuple[int, Map], ...]
SourceTerm = tuple[int, Map | None]
"""A source and the map applied to it; None where the node is a concatenation or a reshape kept as it is."""


@dataclass(slots=True, eq=False)
class Form:
    """One way to compute a node, composed from the forms of its operands in `choices` (None: a cut).

    `alternative` is the node's other way that it takes, if it is not its operator's.
    `own` is the cost of computing it from its sources; `cost`, to be compared between the forms of one node
    only, adds what those cost that exist for it alone.
    """

    node: int
    terms: tuple[SourceTerm, ...]
    choices: tuple[Form | None, ...]
    original: bool
    own: float
    cost: float = 0.0
    alternative: Alternative | None = None
    norm: int | None = None
    """The norm that takes its map, that of `choices`, into its own weight and bias."""
    sources: frozenset[int] = field(init=False)
    """The values that have to exist for this form."""
    interior: list[int] | None = None
    """What it replaces (`reparamkit.engine.plan`), once that was asked for."""

    def __post_init__(self) -> None:
        self.sources = frozenset([source for source, _ in self.terms])

    @property
    def is_map(self) -> bool:
        """Whether it can be composed with what reads it; a move that is kept cannot."""
        return all(structure is not None for _, structure in self.terms)

    @property
    def is_identity(self) -> bool:
        """Whether the node is one of its sources under another name."""
        return is_identity(self.terms)


Terms = dict[int, Numbers]
"""The numbers of a form: the affine map of each of its sources."""
Below = Callable[[Form], Terms]
"""Gives the numbers of the forms that a form is composed of."""


def is_identity(terms: Sequence[SourceTerm]) -> bool:
    """Whether a sum is its one source."""
    return len(terms) == 1 and isinstance(terms[0][1], Scalar) and terms[0][1].identity


class FormTable(ABC):
    """The forms of the values so far, and why some compositions were not exact.

    `barred` nodes take their original form only, and the pairs of a node and an operand in `apart` are not
    composed. `why[node, operand]` is the reason why the operator at `node` could not be composed with what
    computes `operand`.
    """

    def __init__(
        self, nodes: Sequence[Node], barred: frozenset[int], apart: frozenset[tuple[int, int]]
    ) -> None:
        self.nodes, self.barred, self.apart = nodes, barred, apart
        self.why: dict[tuple[int, int], str] = {}
        self.pads = frozenset(n.id for n in nodes if isinstance(n.meaning, Move) and n.meaning.pads)
        """The paddings by what is there: values that hold others."""
        self._of: list[list[Form]] = []

    def of(self, node: int) -> list[Form]:
        """The forms of a node, the cheapest first; none if its operator is not affine."""
        return self._of[node]

    @abstractmethod
    def numbers(self, form: Form) -> Terms:
        """The numbers of a form of these nodes. Raises `Inexact` where they forbid it."""

    def composed(self, node: Node, terms: Maps, choices: tuple[Form | None, ...]) -> Form:
        """A form that replaces the operator of a node."""
        if not terms:  # a map of zeros, which is only a summand of others, too
            return Form(node.id, terms, choices, False, math.inf)
        return Form(node.id, terms, choices, False, self.layers(node, terms))

    def layers(self, node: Node, terms: Maps) -> float:
        """What layers for the terms of a node cost."""
        return cost.total([(m, self.nodes[source].value) for source, m in terms], node.value)

    def note(self, node: Node, choices: tuple[Form | None, ...], reason: str) -> None:
        """Remember why a node was not composed with these forms of its operands."""
        for choice in choices:
            if choice is not None:
                self.why.setdefault((node.id, choice.node), reason)
