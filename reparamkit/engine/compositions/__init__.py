"""What composes with what: for every kind of meaning its forms, and the numbers of those, one file each.

    forms(table: FormTable, node: Node, meaning: M) -> Iterator[Form]
    numbers(nodes: Sequence[Node], form: Form, meaning: M, below: Below) -> Terms

Both do the same steps, one with the structures of maps alone, the other in float64. What only passes values
on has no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from reparamkit.engine.compositions import borders, concatenations, kept, sums, zeros
from reparamkit.engine.form import Below, Form, FormTable, Terms
from reparamkit.engine.graph import Node
from reparamkit.operators import Affine, Bordered, Concat, Contraction, Move, Opaque, Zero

FORMS: dict[type, Callable[[FormTable, Node, Any], Iterator[Form]]] = {
    Affine: sums.forms,
    Concat: concatenations.forms,
    Bordered: borders.forms,
    Zero: zeros.forms,
    Move: kept.forms,
    Contraction: kept.forms,
    Opaque: kept.forms,
}
NUMBERS: dict[type, Callable[[Sequence[Node], Form, Any, Below], Terms]] = {
    Affine: sums.numbers,
    Concat: concatenations.numbers,
    Bordered: borders.numbers,
    Zero: zeros.numbers,
}
