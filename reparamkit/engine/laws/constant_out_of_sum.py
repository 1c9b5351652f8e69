"""Constants per channel that are added to one side of a sum leave the sum.

    (u + β) + v = (u + v) + β

What reads the sum, if it is a linear layer or an unpadded convolution, takes β into its own bias, though the
sum has two sources: so does the β of ConvNeXt V2's response normalisation, γ·x·n + β + x.
"""

from __future__ import annotations

from dataclasses import replace

from reparamkit.algebra import AffineMap, Geometry, Numbers, Scalar, ScalarMap, affine
from reparamkit.engine.graph import Alternative, Definition, Node, ValueGraph
from reparamkit.operators import Affine, Part


def constant_out_of_sum(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """A sum of two values, one of which is `u + β`, without the β and with it behind."""
    meaning = definition.meaning
    if not isinstance(meaning, Affine) or len(meaning.parts) != 2:
        return ()
    if meaning.parts[0].value.id == meaning.parts[1].value.id:
        return ()
    for index, part in enumerate(meaning.parts):
        side = graph[part.value.id]
        if not isinstance(part.structure, Scalar) or part.structure.has_bias or not _only_adds(side):
            continue
        assert isinstance(side.meaning, Affine)
        (shifting,) = side.meaning.parts
        parts = list(meaning.parts)
        parts[index] = replace(part, value=shifting.value)
        if parts[0].value.id == parts[1].value.id:
            continue
        if graph.readers(side.id) > 1:
            return ()
        bare = graph.once_more(definition, Affine(tuple(parts)), {side.id: shifting.value.id})
        return (Alternative(_shift(bare, part, shifting), (side.id,)),)
    return ()


def _shift(bare: Node, factor: Part, shifting: Part) -> Part:
    """The sum, made of its value without the shift."""

    def load() -> Numbers:
        numbers, scale = shifting.load(), factor.load()
        assert isinstance(numbers, AffineMap)
        assert isinstance(scale, ScalarMap)
        assert numbers.bias is not None
        return affine.with_bias(numbers, numbers.bias * scale.alpha)

    return Part(bare.value, shifting.structure, load)


def _only_adds(node: Node) -> bool:
    """Whether a node is `x + β` with a constant per channel, and not `β - x`."""
    if not isinstance(node.meaning, Affine) or len(node.meaning.parts) != 1:
        return False
    (part,) = node.meaning.parts
    if not isinstance(part.structure, Geometry) or not part.structure.per_channel:
        return False
    if not part.structure.has_bias or node.operator not in ("aten.add.Tensor", "aten.sub.Tensor"):
        return False
    numbers = part.load()
    return isinstance(numbers, AffineMap) and bool((numbers.kernel == 1.0).all())
