"""A value with a border of constants around it.

[f  A x  f]  =  A' x                      where f is the shift of A, and A' pads x by zeros
[0  A x + B y  0]  =  A' x + B' y         where neither A nor B shifts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from reparamkit.algebra import IDENTITY, AffineMap, Geometry, Inexact, Map, affine, geometry
from reparamkit.engine import cost
from reparamkit.engine.form import Below, Form, FormTable, Maps, Terms
from reparamkit.engine.graph import Node
from reparamkit.operators import Bordered

_SAME = 1e-6  # the network computes its border in its own precision


def forms(table: FormTable, node: Node, meaning: Bordered) -> Iterator[Form]:
    """The padding as it is, and the layers in it with a wider reach."""
    yield Form(node.id, ((meaning.value.id, None),), (None,), True, cost.copy(node.value))
    if node.id in table.barred:
        return
    around = _around_zeros if meaning.fill.zero else _around_shift
    for form in table.of(meaning.value.id):
        try:
            terms = around(table, meaning.structure, form)
        except Inexact as reason:
            if str(reason):
                table.why.setdefault((node.id, meaning.value.id), str(reason))
            continue
        yield table.composed(node, terms, (form,))
    if meaning.fill.zero:
        yield table.composed(node, ((meaning.value.id, meaning.structure),), (None,))


def _around_shift(table: FormTable, pad: Geometry, form: Form) -> Maps:
    """The one map of a form, padded by its own shift; that this is the constant, the numbers have to show."""
    source, structure = form.terms[0] if len(form.terms) == 1 else (-1, None)
    if not isinstance(structure, Geometry):
        raise Inexact("")
    whole = geometry.compose(pad, replace(structure, has_bias=False))
    assert isinstance(whole, Geometry)
    return ((source, replace(whole, has_bias=True)),)


def _around_zeros(table: FormTable, pad: Geometry, form: Form) -> Maps:
    """The maps of a form padded by zeros; a shift that comes to zero is none."""
    terms = [(source, structure) for source, structure in form.terms if structure is not None]
    if len(terms) < len(form.terms):
        raise Inexact("")
    try:
        return _padded(pad, terms)
    except Inexact:
        padded = _padded(pad, [(source, replace(structure, has_bias=False)) for source, structure in terms])
        if any(affine.shifts(m) for m in table.numbers(form).values()):
            raise
        return padded


def _padded(pad: Geometry, terms: Iterable[tuple[int, Map]]) -> Maps:
    return tuple((source, geometry.compose(pad, structure)) for source, structure in terms)


def numbers(nodes: Sequence[Node], form: Form, meaning: Bordered, below: Below) -> Terms:
    """Raises `Inexact` where the border holds another constant."""
    (choice,) = form.choices
    inner: Terms = {meaning.value.id: IDENTITY} if choice is None else below(choice)
    if meaning.fill.zero:
        if any(affine.shifts(surrounded) for surrounded in inner.values()):
            raise Inexact("the border holds zeros, and what it surrounds is shifted")
        return {source: affine.reaching(meaning.structure, m) for source, m in inner.items()}
    ((source, surrounded),) = inner.items()
    assert isinstance(surrounded, AffineMap)
    fill = meaning.fill.load().flatten()
    shift = torch.zeros_like(fill) if surrounded.bias is None else surrounded.bias
    if not bool(((fill - shift).abs() <= _SAME * fill.abs().max()).all()):
        raise Inexact("the border holds another constant than the shift of what it surrounds")
    return {source: affine.with_bias(affine.reaching(meaning.structure, surrounded), fill)}
