"""A norm by its input's own statistics ends in a map per channel.

    norm_γβ(x) = γ · norm(x) + β

The bare norm is written down, and the map behind it goes wherever maps go.
"""

from __future__ import annotations

from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.operators import Opaque, Part, Rescaled


def affine_part_of_norm(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The norm without weight and bias, and these behind it."""
    meaning = definition.meaning
    if not isinstance(meaning, Rescaled):
        return ()
    bare = graph.once_more(definition, Opaque(meaning.value), {}, meaning.without)
    return (Alternative(Part(bare.value, meaning.structure, meaning.load), ()),)
