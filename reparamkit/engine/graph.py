"""A network as values, each with the ways to compute it that are known.

A value of the network is computed by an operator of the host (`reparamkit.hosts`). Laws
(`reparamkit.engine.laws`) add *alternatives* when the value is defined, and nothing is taken away. An
alternative may read values that the network does not have: an operator of the network once more, on other
operands, or a map of a value alone, which exists inside folds only. They are written down here and nowhere
else; the host gets those that are chosen in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reparamkit.operators import Affine, Meaning, Term, Value


@dataclass(frozen=True, slots=True)
class Alternative:
    """The value is `term`, a map of another one, and the sum of it and `others` where there are any.

    `covers` are the values of the network it does without.
    """

    term: Term
    covers: tuple[int, ...]
    others: tuple[Term, ...] = ()

    @property
    def meaning(self) -> Affine:
        """The sum."""
        return Affine((self.term, *self.others))


@dataclass(slots=True)
class Node:
    """One value with what its operator means, or why that is not known.

    `call` is the operator in the host's own terms; None for a map alone. `users` and `forced` (something
    that is no value reads it) speak of the network only.
    """

    id: int
    name: str
    operator: str
    value: Value
    meaning: Meaning | None
    call: object = None
    reason: str = ""
    notable: bool = False
    users: list[int] = field(default_factory=list)
    forced: bool = False
    escapes: bool = False
    """Something reads it that is no value: it is a result of the network, or its size is asked for."""
    shown: bool = False
    """The network's caller gets it, or a view of it."""
    product: tuple[int, int] | None = None
    """The operands of a product of two values (`reparamkit.operators.products`)."""
    recomputed_elements: int = 0
    covers: frozenset[int] = frozenset()
    """The values between those that the meaning reads and this one, if it took several operators to spell."""
    alternatives: tuple[Alternative, ...] = ()
    synthetic: bool = False
    """The network has no such value."""
    stands_for: int | None = None
    """The value of the network for whose sake a synthetic one is there."""
    operand_for: Mapping[int, int] = field(default_factory=dict)
    """For an operator once more: the values that it reads in place of its own operands."""
    without: tuple[str, ...] = ()
    """For an operator once more: arguments that it does without."""

    @property
    def is_map_alone(self) -> bool:
        """Whether it cannot run as it is: it is there for folds only."""
        return self.call is None

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that the meaning reads."""
        return () if self.meaning is None else self.meaning.operands


@dataclass(frozen=True)
class Definition:
    """A value of the network that is about to join the graph; `value.id` is not known yet."""

    name: str
    operator: str
    call: object
    value: Value
    meaning: Meaning


class ValueGraph:
    """The values in an order in which each is behind those that it is made of.

    Args:
        readers: how many operators of the network read a value of it.
    """

    def __init__(self, readers: Callable[[Node], int]) -> None:
        self.nodes: list[Node] = []
        self._readers = readers
        self._waiting: list[Node] = []

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    def readers(self, index: int) -> int:
        """How many operators of the network read a value of it."""
        return self._readers(self.nodes[index])

    def add(self, name: str, operator: str, call: object, value: Value, meaning: Meaning | None) -> Node:
        """A value of the network; the synthetic ones since the last were for its sake.

        `call` is None for a map of a layer's output that takes its place (see `engine.rising`).
        """
        node = self._append(Node(len(self.nodes), name, operator, value, meaning, call))
        for other in self._waiting:
            other.stands_for = node.id
        self._waiting.clear()
        return node

    def once_more(
        self,
        original: Node | Definition,
        meaning: Meaning,
        operand_for: Mapping[int, int],
        without: tuple[str, ...] = (),
    ) -> Node:
        """The operator of a value on other operands, or without some of its arguments."""
        node = Node(len(self.nodes), original.name, original.operator, original.value, meaning, original.call)
        node.operand_for, node.without = dict(operand_for), without
        return self._synthetic(node)

    def on_newer(self, original: Node | Definition, newer: Mapping[int, Value]) -> Node:
        """The operator of a value on newer versions of its operands."""
        assert original.meaning is not None
        meaning = original.meaning.on(newer)
        return self.once_more(original, meaning, {old: value.id for old, value in newer.items()})

    def map_alone(self, like: Definition, term: Term) -> Node:
        """A map of a value that keeps its shape."""
        value = term.value
        return self._synthetic(Node(len(self.nodes), like.name, like.operator, value, Affine((term,))))

    def owner(self, index: int) -> Node:
        """The value of the network that this one is, or is there for."""
        node = self.nodes[index]
        return node if node.stands_for is None else self.nodes[node.stands_for]

    def _synthetic(self, node: Node) -> Node:
        node.synthetic = True
        self._waiting.append(node)
        return self._append(node)

    def _append(self, node: Node) -> Node:
        value = node.value
        node.value = Value(node.id, value.shape, value.sizes, value.dtype, value.origin)
        self.nodes.append(node)
        return node
