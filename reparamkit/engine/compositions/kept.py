"""An operator that stays as it is: it moves values, or does what no map of them is."""

from __future__ import annotations

from collections.abc import Iterator

from reparamkit.engine import cost
from reparamkit.engine.form import Form, FormTable
from reparamkit.engine.graph import Node
from reparamkit.operators import Contraction, Move, Opaque


def forms(table: FormTable, node: Node, meaning: Move | Opaque | Contraction) -> Iterator[Form]:
    """The operator alone; one that scales its result does that in passing."""
    own = 0.0
    if isinstance(meaning, Contraction):
        own = cost.contraction(meaning.value, node.value, meaning.summed, meaning.weights)
    elif isinstance(meaning, Opaque) and meaning.rescales:
        own = cost.in_passing(node.value)
    yield Form(node.id, ((meaning.value.id, None),), (None,), True, own)
