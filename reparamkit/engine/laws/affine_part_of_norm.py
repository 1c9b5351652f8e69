"""A norm by its input's own statistics ends in a map per channel.

    norm_γβ(x) = γ · norm(x) + β

The bare norm is written down, and the map behind it goes wherever maps go. The other way round, a map per
channel behind a norm goes into the norm's own weight and bias: that is a form of the map (`engine.forms`).
"""

from __future__ import annotations

from dataclasses import replace

from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.operators import Opaque, Rescaled


def affine_part_of_norm(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The norm without weight and bias, and these behind it."""
    meaning = definition.meaning
    if not isinstance(meaning, Rescaled) or meaning.behind is None:
        return ()
    bare = graph.once_more(definition, Opaque(meaning.value, takes=meaning.bare), {}, meaning.without)
    return (Alternative(replace(meaning.behind, value=bare.value), ()),)
