"""A concatenation of channels.

[A x, B x]  =  [A; B] x
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reparamkit.algebra import (
    IDENTITY,
    AffineMap,
    Geometry,
    Inexact,
    Scalar,
    ScalarMap,
    Transposed,
    affine,
    geometry,
)
from reparamkit.engine import cost
from reparamkit.engine.form import Below, Form, FormTable, SourceTerm, Terms
from reparamkit.engine.graph import Node
from reparamkit.operators import Concat, Value

DIFFERENT = "its input is a concatenation of different values"
"""Why a concatenation is not composed with what reads it."""


def forms(table: FormTable, node: Node, meaning: Concat) -> Iterator[Form]:
    """The concatenation as it is, and for every value that all parts are maps of, one map of that."""
    kept: tuple[SourceTerm, ...] = tuple((v, None) for v in dict.fromkeys(v.id for v in meaning.values))
    cuts = (None,) * len(meaning.values)
    yield Form(node.id, kept, cuts, True, cost.concatenation(node.value))
    if node.id in table.barred:
        return
    if meaning.axis not in (0, 1, node.value.ndim - 1) or node.value.ndim < 2:
        return
    dims = node.value.ndim - 1 - meaning.axis
    singles = [_singles(table, v, dims, scalars=meaning.axis > 0) for v in meaning.values]
    for source in singles[0]:
        if not all(source in s for s in singles):
            continue
        choices = tuple(s[source][0] for s in singles)
        try:
            structure = geometry.stack([s[source][1] for s in singles])
        except Inexact as reason:
            table.note(node, choices, str(reason))
            continue
        yield table.composed(node, ((source, structure),), choices)


def _singles(
    table: FormTable, value: Value, dims: int, *, scalars: bool
) -> dict[int, tuple[Form | None, Geometry | Transposed]]:
    """The forms of `value` with one source each, as channel maps with `dims` spatial axes.

    Maps that are the same everywhere are such maps only where `scalars` says that those are channels.
    """
    singles: dict[int, tuple[Form | None, Geometry | Transposed]] = {}
    if not 0 <= dims <= 3 or not isinstance(value.sizes[value.ndim - 1 - dims], int):
        return singles
    cut: list[tuple[Form | None, tuple[SourceTerm, ...]]] = [(None, ((value.id, Scalar(identity=True)),))]
    for choice, terms in [*((f, f.terms) for f in table.of(value.id)), *cut]:
        source, structure = terms[0] if len(terms) == 1 else (-1, None)
        if structure is None or source in singles:
            continue
        if isinstance(structure, Scalar):
            if not scalars:
                continue
            structure = geometry.channelwise(value.shape[-dims - 1], dims, has_bias=structure.has_bias)
        if structure.dims == dims:
            singles[source] = (choice, structure)
    return singles


def numbers(nodes: Sequence[Node], form: Form, meaning: Concat, below: Below) -> Terms:
    """The maps of all parts, one upon the other."""
    ((source, structure),) = form.terms
    if structure is None or isinstance(structure, Scalar):
        raise Inexact(DIFFERENT)
    parts: list[AffineMap] = []
    for value, choice in zip(meaning.values, form.choices, strict=True):
        part = IDENTITY if choice is None else below(choice)[source]
        if isinstance(part, ScalarMap):
            part = affine.promoted(part, value.shape[-structure.dims - 1], structure.dims)
        parts.append(part)
    return {source: affine.stack(parts)}
