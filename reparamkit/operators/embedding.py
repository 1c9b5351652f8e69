"""Tables of embeddings: linear maps of the one-hot vectors of integers.

    y = W[i] = Wᵀ e_i        W: (rows, outputs)

Since the entries of e_i add up to one, a shift behind it is one of every row.
"""

from __future__ import annotations

from reparamkit.algebra import AffineMap, geometry
from reparamkit.operators.base import Affine, Call, Meaning, NotAffine, Term, reader


@reader("aten.embedding.default")
def embedding(call: Call) -> Meaning:
    """Rows of a table; `padding_idx` and what else speaks of gradients says nothing of them."""
    table, index = call.constant("weight", "table"), call.value("indices")
    rows, outputs = table.shape
    if not rows or not outputs:
        raise NotAffine("its table is empty", notable=False)
    structure = geometry.pointwise(rows, outputs, 1, 0, has_bias=False)
    term = Term(index, structure, lambda: AffineMap(structure, table.load().t().contiguous(), None))
    return Affine((term,), kept=rows * outputs if table.shared else 0)
