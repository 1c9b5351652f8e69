"""A value with a border of constants around it.

[f  A x  f]  =  A' x        where f is the shift of A, and A' pads x by zeros
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from reparamkit.algebra import AffineMap, Geometry, Inexact, affine, geometry
from reparamkit.engine import cost
from reparamkit.engine.form import Below, Form, FormTable, Terms
from reparamkit.engine.graph import Node
from reparamkit.operators import Bordered

_SAME = 1e-6  # the network computes its border in its own precision


def forms(table: FormTable, node: Node, meaning: Bordered) -> Iterator[Form]:
    """The padding as it is, and the layers in it with a wider reach."""
    yield Form(node.id, ((meaning.value.id, None),), (None,), True, cost.copy(node.value))
    for form in table.of(meaning.value.id) if node.id not in table.barred else ():
        source, structure = form.terms[0] if len(form.terms) == 1 else (-1, None)
        if not isinstance(structure, Geometry):
            continue
        try:  # that the constant is the map's own shift is for the numbers to show
            whole = geometry.compose(meaning.structure, replace(structure, has_bias=False))
        except Inexact as reason:
            table.why.setdefault((node.id, meaning.value.id), str(reason))
            continue
        assert isinstance(whole, Geometry)
        yield table.composed(node, ((source, replace(whole, has_bias=True)),), (form,))


def numbers(nodes: Sequence[Node], form: Form, meaning: Bordered, below: Below) -> Terms:
    """Raises `Inexact` where the border holds another constant."""
    (choice,) = form.choices
    assert choice is not None
    ((source, inner),) = below(choice).items()
    assert isinstance(inner, AffineMap)
    fill = meaning.fill.load().flatten()
    shift = torch.zeros_like(fill) if inner.bias is None else inner.bias
    if not bool(((fill - shift).abs() <= _SAME * fill.abs().max()).all()):
        raise Inexact("the border holds another constant than the shift of what it surrounds")
    return {source: affine.with_bias(affine.reaching(meaning.structure, inner), fill)}
