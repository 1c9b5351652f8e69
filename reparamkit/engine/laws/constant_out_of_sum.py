"""Constants per channel that are added to one side of a sum leave the sum.

    (u + β) + v = (u + v) + β

What reads the sum, if it is a linear layer or an unpadded convolution, takes β into its own bias, though the
sum has two sources: so does the β of ConvNeXt V2's response normalisation, γ·x·n + β + x.
"""

from __future__ import annotations

from dataclasses import replace

from reparamkit.algebra import AffineMap, Geometry, Numbers, Scalar, ScalarMap, affine
from reparamkit.engine.graph import Alternative, Definition, Node, ValueGraph
from reparamkit.operators import Affine, Term


def constant_out_of_sum(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """A sum of two values, one of which is `u + β`, without the β and with it behind."""
    meaning = definition.meaning
    if not isinstance(meaning, Affine) or len(meaning.terms) != 2:
        return ()
    if meaning.terms[0].value.id == meaning.terms[1].value.id:
        return ()
    for index, term in enumerate(meaning.terms):
        side = graph[term.value.id]
        if not isinstance(term.structure, Scalar) or term.structure.has_bias or not _only_adds(side):
            continue
        assert isinstance(side.meaning, Affine)
        (shifting,) = side.meaning.terms
        terms = list(meaning.terms)
        terms[index] = replace(term, value=shifting.value)
        if terms[0].value.id == terms[1].value.id:
            continue
        if graph.readers(side.id) > 1:
            return ()
        bare = graph.once_more(definition, Affine(tuple(terms)), {side.id: shifting.value.id})
        return (Alternative(_shift(bare, term, shifting), (side.id,)),)
    return ()


def _shift(bare: Node, factor: Term, shifting: Term) -> Term:
    """The sum, made of its value without the shift."""

    def load() -> Numbers:
        numbers, scale = shifting.load(), factor.load()
        assert isinstance(numbers, AffineMap)
        assert isinstance(scale, ScalarMap)
        assert numbers.bias is not None
        return affine.with_bias(numbers, numbers.bias * scale.alpha)

    return Term(bare.value, shifting.structure, load)


def _only_adds(node: Node) -> bool:
    """Whether a node is `x + β` with a constant per channel, and not `β - x`."""
    if not isinstance(node.meaning, Affine) or len(node.meaning.terms) != 1:
        return False
    (term,) = node.meaning.terms
    if not isinstance(term.structure, Geometry) or not term.structure.per_channel:
        return False
    if not term.structure.has_bias or node.operator not in ("aten.add.Tensor", "aten.sub.Tensor"):
        return False
    numbers = term.load()
    return isinstance(numbers, AffineMap) and bool((numbers.kernel == 1.0).all())
