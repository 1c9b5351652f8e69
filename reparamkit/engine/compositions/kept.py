"""An operator that stays as it is: it moves values, or does what no map of them is."""

from __future__ import annotations

from collections.abc import Iterator

from reparamkit.engine import cost
from reparamkit.engine.form import Form, FormTable
from reparamkit.engine.graph import Node
from reparamkit.operators import Move, Opaque


def forms(table: FormTable, node: Node, meaning: Move | Opaque) -> Iterator[Form]:
    """The operator alone; one that scales its result does that in passing."""
    rescales = isinstance(meaning, Opaque) and meaning.rescales
    passing = cost.in_passing(node.value) if rescales else 0.0
    yield Form(node.id, ((meaning.value.id, None),), (None,), True, passing)
