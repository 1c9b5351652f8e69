"""Zeros in the shape of other values: in a sum, nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reparamkit.engine import cost
from reparamkit.engine.form import Below, Form, FormTable, SourceTerm, Terms
from reparamkit.engine.graph import Node
from reparamkit.operators import Zero


def forms(table: FormTable, node: Node, meaning: Zero) -> Iterator[Form]:
    """The operator, and the sum of nothing."""
    kept: tuple[SourceTerm, ...] = tuple((value.id, None) for value in meaning.values)
    yield Form(node.id, kept, (None,) * len(kept), True, cost.copy(node.value))
    if node.id not in table.barred:  # the sum of nothing is only a summand of others
        yield Form(node.id, (), (), False, math.inf)


def numbers(nodes: Sequence[Node], form: Form, meaning: Zero, below: Below) -> Terms:
    """None."""
    return {}
