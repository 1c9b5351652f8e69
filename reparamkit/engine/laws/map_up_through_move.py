"""A map per channel behind operators that treat channels alike is one before them.

    D' ∘ P = P ∘ D

    linear ─▶ transpose ─▶ reshape ─▶ (· γ)          (γ ∘ linear) ─▶ transpose ─▶ reshape

For a map that what lies above the operators can take in. The map up there never runs as it is: it exists only
inside folds. Above a concatenation of channels there is one for each of its operands, with that operand's
part of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from reparamkit.algebra import IDENTITY, AffineMap, Geometry, Numbers, Scalar, affine, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.engine.laws.chains import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Concat, Meaning, Move, Opaque, Term, Value

_LONGEST = 16  # maps in a row; every one of them looks up its chain, and networks may be long


@dataclass(frozen=True)
class _Rise:
    """`terms` instead of the maps below the operators `path` (the nearest to what the terms read first).

    `skipped` are the values between the operators and the last of the maps.
    """

    terms: tuple[Term, ...]
    path: tuple[int, ...]
    skipped: tuple[int, ...]


def map_up_through_move(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The operators above a map per channel once more, below the map."""
    rise = _rise(graph, definition.meaning)
    if rise is None or any(graph.readers(i) > 1 for i in (*rise.path, *rise.skipped)):
        return ()
    if len(rise.terms) > 1 and any(graph.readers(term.value.id) > 1 for term in rise.terms):
        return ()
    now = {term.value.id: graph.map_alone(definition, term).value for term in rise.terms}
    for step in rise.path:
        now[step] = graph.on_newer(graph[step], now).value
    last = now[rise.path[-1]]
    covers = (*rise.path, *rise.skipped)
    return (Alternative(Term(last, Scalar(identity=True), lambda: IDENTITY), covers),)


def _rise(graph: ValueGraph, meaning: Meaning) -> _Rise | None:
    """Where a map per channel can go; None if nothing above would take it in."""
    terms = [term for term in (per_channel(meaning),) if term is not None]
    if not terms:
        return None
    while (further := per_channel(graph[terms[-1].value.id].meaning)) is not None:
        terms.append(further)
        if len(terms) > _LONGEST:
            return None
    chain = composed_structure(terms)
    if not isinstance(chain, Geometry):
        return None
    value, path = terms[-1].value, []
    moves: list[Move] = []
    while isinstance(move := graph[value.id].meaning, Move):
        if move.cuts:
            return None  # what else reads the value would have to do without the map
        moves.append(move)
        path.append(value.id)
        value = move.value
    axis = _axis_above(value, moves, terms[-1].value, terms[-1].value.ndim - 1 - chain.dims)
    if axis is None:
        return None
    roots: tuple[Value, ...] = (value,)
    above = graph[value.id].meaning
    if isinstance(above, Concat) and above.axis == axis and not graph[value.id].covers:
        path.append(value.id)
        roots = above.values
    if not path or not all(_takes_in(graph[root.id].meaning) for root in roots):
        return None
    if len({root.id for root in roots}) < len(roots):
        return None
    dims = value.ndim - 1 - axis
    risen, first = [], 0
    for root in roots:
        channels = root.shape[axis]
        structure = geometry.channelwise(channels, dims, has_bias=chain.has_bias)
        risen.append(Term(root, structure, partial(_term_of, terms, dims, first, channels)))
        first += channels
    skipped = tuple(term.value.id for term in reversed(terms[:-1]))
    return _Rise(tuple(risen), tuple(reversed(path)), skipped) if first == chain.outputs else None


def _takes_in(meaning: Meaning | None) -> bool:
    """Whether a map per channel behind it may become part of it: a layer, another map, or a norm."""
    return isinstance(meaning, Affine) or (isinstance(meaning, Opaque) and meaning.takes is not None)


def _axis_above(root: Value, moves: Sequence[Move], below: Value, axis: int) -> int | None:
    """The axis of the root whose channels lie along `axis` of what is made of it; None if there is none."""
    wanted = Layout.of(below.sizes, axis)
    for above in range(max(root.ndim - 4, 0), root.ndim):
        layout = Layout.of(root.sizes, above)
        for move in reversed(moves):
            layout = None if layout is None else move.carry(layout)
        if layout is not None and layout == wanted:
            return above
    return None


def _term_of(chain: Sequence[Term], dims: int, first: int, channels: int) -> Numbers:
    """The chain's map of some of the channels, for a tensor of `dims` spatial axes."""
    below = composed_numbers(chain)
    assert isinstance(below, AffineMap)
    mine = slice(first, first + channels)
    return affine.channelwise(
        below.kernel.flatten()[mine], None if below.bias is None else below.bias[mine], dims
    )
