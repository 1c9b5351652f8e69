"""A map per channel before an operator that treats channels alike is one behind it.

    P ∘ D = D' ∘ P

    s ─▶ batch norm ─▶ mean over H, W ─▶ linear          s ─▶ mean over H, W ─▶ (scale and shift ∘ linear)

For every such operator P below a chain of maps per channel on `s`, P is also written down on `s` itself, and
P's own result is the chain's map of that, on the axis where the channels then lie; repeated along it, where
positions have been flattened with them. Behind an operator that splits the channels over several axes there
is no such axis: then the next one may bring them together again, and all of them are written down. Whether it
is used is for the cost to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reparamkit.algebra import AffineMap, Geometry, Map, Numbers, Scalar, ScalarMap, affine, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.engine.graph import Alternative, Definition, Node, ValueGraph
from reparamkit.engine.laws.chains import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Meaning, Move, Opaque, Term, Value

_MOST = 64  # values that a chain may cover; every operator below looks up all of it, and networks may be long
_SPLIT = 4  # operators in a row behind which the channels lie on several axes


@dataclass(frozen=True)
class _Chain:
    """What lies above an operator: `structure` applied to `root`, by way of the values `covers`."""

    root: Value
    structure: Map
    load: Callable[[], Numbers]
    covers: tuple[int, ...]


def map_down_through_move(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The operators on what lies above the maps per channel on the first one's operand, and these behind."""
    meaning = definition.meaning
    last = _as_move(meaning)
    if last is None or last.alone:  # who reads the rest needs the map above as well
        return ()
    moves, path = [last], list[int]()
    while (chain := _chain_above(graph, moves[0])) is None:
        above = graph[moves[0].value.id]
        move = _as_move(above.meaning)
        if move is None or move.cuts or len(path) == _SPLIT or graph.readers(above.id) > 1:
            return ()
        moves.insert(0, move)
        path.insert(0, above.id)
    behind = _behind(chain, moves, definition.value)
    if behind is None:
        return ()
    now = {moves[0].value.id: chain.root}
    for step in path:
        now = {step: graph.on_newer(graph[step], now).value}
    bare = graph.on_newer(definition, now)
    structure, load = behind
    return (Alternative(Term(bare.value, structure, load), (*chain.covers, *path)),)


def _chain_above(graph: ValueGraph, move: Move) -> _Chain | None:
    """The chain of maps per channel that ends in the operator's operand; None if there is none."""
    terms: list[Term] = []
    covers: list[int] = []
    current = move.value
    while True:
        node = graph[current.id]
        term, more = _moved_or_per_channel(node)
        if term is None:
            break
        covers += [node.id, *more]
        if len(covers) > _MOST:
            return None
        terms.append(term)
        current = term.value
    structure = composed_structure(terms)
    if structure is None or (isinstance(structure, Scalar) and structure.identity):
        return None
    return _Chain(current, structure, lambda: composed_numbers(terms), tuple(covers))


def _moved_or_per_channel(node: Node) -> tuple[Term | None, tuple[int, ...]]:
    averages = isinstance(node.meaning, Affine) and node.meaning.averages
    if not isinstance(node.meaning, Move | Opaque) and not averages:
        return per_channel(node.meaning), ()
    for alternative in node.alternatives:
        if per_channel(Affine((alternative.term,))) is not None:
            return alternative.term, alternative.covers
    return None, ()


def _as_move(meaning: Meaning | None) -> Move | None:
    """The meaning of an operator that lets maps per channel pass; None for any other."""
    if isinstance(meaning, Affine) and meaning.averages:
        (term,) = meaning.terms
        assert isinstance(term.structure, Geometry)
        last = range(term.value.ndim - term.structure.dims, term.value.ndim)
        return Move(term.value, lambda layout: layout if layout.is_closed(last) else None)
    return meaning if isinstance(meaning, Move) else None


def _behind(chain: _Chain, moves: Sequence[Move], result: Value) -> tuple[Map, Callable[[], Numbers]] | None:
    """The chain's map behind the operators."""
    if isinstance(chain.structure, Scalar):
        return chain.structure, chain.load
    if chain.structure.outputs == 1:
        return Scalar(chain.structure.has_bias), lambda: _one_channel(chain.load())
    first = moves[0].value
    layout = Layout.of(first.sizes, first.ndim - 1 - chain.structure.dims)
    for move in moves:
        layout = None if layout is None else move.carry(layout)
    axis = None if layout is None else layout.telling_axis
    if layout is None or axis is None or result.ndim - 1 - axis > 3:
        return None
    dims = result.ndim - 1 - axis
    if dims and chain.structure.has_bias and result.ndim != dims + 2:
        return None  # no layer shifts those
    structure = geometry.channelwise(result.shape[axis], dims, has_bias=chain.structure.has_bias)

    def load() -> Numbers:
        above = chain.load()
        assert isinstance(above, AffineMap)
        mine = layout.channels().flatten()
        bias = None if above.bias is None else above.bias[mine]
        return affine.channelwise(above.kernel.flatten()[mine], bias, dims)

    return structure, load


def _one_channel(numbers: Numbers) -> ScalarMap:
    assert isinstance(numbers, AffineMap)
    return ScalarMap(float(numbers.kernel), 0.0 if numbers.bias is None else float(numbers.bias))
