"""What a host has to do for the engine: run the operators that were there before.

The fx host is `reparamkit.hosts.fx`. Another one (a file of another format, edited in place) reads its
network into a `ValueGraph` of its own and runs its own operators, so that the proof shares no code with the
algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from torch import Tensor

from reparamkit.engine.graph import ValueGraph


class Host(Protocol):
    """A network, as the proof of a fold sees it."""

    graph: ValueGraph

    def run(
        self,
        index: int,
        value: Callable[[int], Tensor],
        constant: Callable[[Any], Any],
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """The operator of a value of `graph`, the original one, on other numbers.

        Args:
            index: the value; no map alone.
            value: gives the operands.
            constant: gives the constants, by the host's own names for them.
            shape: where the operands have other sizes than captured, the shape of the result then, which
                sizes among the arguments have to be replaced for.
        """

    def constant(self, name: Any) -> Any:
        """A constant, in float64 if it is a floating one."""

    def is_constant(self, name: Hashable) -> bool:
        """Whether it is one of the host's names for constants."""

    def reads(self, index: int) -> list[int]:
        """The values that a value is made of."""

    def ends_at_fixed_place(self, index: int) -> bool:
        """Whether the operator is a crop that ends at a place counted from the front."""
