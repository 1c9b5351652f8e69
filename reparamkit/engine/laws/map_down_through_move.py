"""A map per channel before an operator that treats channels alike is one behind it.

    P ∘ D = D' ∘ P

    s ─▶ batch norm ─▶ mean over H, W ─▶ linear          s ─▶ mean over H, W ─▶ (scale and shift ∘ linear)

For every such operator P below a chain of maps per channel on `s`, P is also written down on `s` itself, and
P's own result is the chain's map of that, on the axis where the channels then lie. Whether it is used is for
the cost to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reparamkit.algebra import AffineMap, Geometry, Map, Numbers, Scalar, ScalarMap, affine, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.engine.graph import Alternative, Definition, Node, ValueGraph
from reparamkit.engine.laws.chains import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Meaning, Move, Opaque, Part, Value

_MOST = 64  # values that a chain may cover; every operator below looks up all of it, and networks may be long


@dataclass(frozen=True)
class _Chain:
    """What lies above an operator: `structure` applied to `root`, by way of the values `covers`."""

    root: Value
    structure: Map
    load: Callable[[], Numbers]
    covers: tuple[int, ...]


def map_down_through_move(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The operator on what lies above the maps per channel on its operand, and these behind it."""
    meaning = definition.meaning
    move = _as_move(meaning)
    chain = None if move is None else _chain_above(graph, move)
    if move is None or chain is None or move.alone:  # who reads the rest needs the map above as well
        return ()
    behind = _behind(chain, move, definition.value)
    if behind is None:
        return ()
    if isinstance(meaning, Affine):
        moved: Meaning = replace(meaning, parts=(replace(meaning.parts[0], value=chain.root),))
    else:
        moved = replace(move, value=chain.root)
    again = graph.once_more(definition, moved, {move.value.id: chain.root.id})
    structure, load = behind
    return (Alternative(Part(again.value, structure, load), chain.covers),)


def _chain_above(graph: ValueGraph, move: Move) -> _Chain | None:
    """The chain of maps per channel that ends in the operator's operand; None if there is none."""
    parts: list[Part] = []
    covers: list[int] = []
    current = move.value
    while True:
        node = graph[current.id]
        part, more = _moved_or_per_channel(node)
        if part is None:
            break
        covers += [node.id, *more]
        if len(covers) > _MOST:
            return None
        parts.append(part)
        current = part.value
    structure = composed_structure(parts)
    if structure is None or (isinstance(structure, Scalar) and structure.identity):
        return None
    return _Chain(current, structure, lambda: composed_numbers(parts), tuple(covers))


def _moved_or_per_channel(node: Node) -> tuple[Part | None, tuple[int, ...]]:
    averages = isinstance(node.meaning, Affine) and node.meaning.averages
    if not isinstance(node.meaning, Move | Opaque) and not averages:
        return per_channel(node.meaning), ()
    for alternative in node.alternatives:
        if per_channel(Affine((alternative.part,))) is not None:
            return alternative.part, alternative.covers
    return None, ()


def _as_move(meaning: Meaning) -> Move | None:
    """The meaning of an operator that lets maps per channel pass; None for any other."""
    if isinstance(meaning, Affine) and meaning.averages:
        (part,) = meaning.parts
        assert isinstance(part.structure, Geometry)
        last = range(part.value.ndim - part.structure.dims, part.value.ndim)
        return Move(part.value, lambda layout: layout if layout.is_closed(last) else None)
    return meaning if isinstance(meaning, Move) else None


def _behind(chain: _Chain, move: Move, result: Value) -> tuple[Map, Callable[[], Numbers]] | None:
    """The chain's map behind the operator."""
    if isinstance(chain.structure, Scalar):
        return chain.structure, chain.load
    if chain.structure.outputs == 1:
        return Scalar(chain.structure.has_bias), lambda: _one_channel(chain.load())
    above = Layout.of(move.value.sizes, move.value.ndim - 1 - chain.structure.dims)
    layout = None if above is None else move.carry(above)
    axis = None if layout is None else layout.channel_axis
    if layout is None or axis is None or result.ndim - 1 - axis > 3:
        return None
    dims = result.ndim - 1 - axis
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
