"""Maps per channel sink through operators that treat every channel alike.

    s ─▶ batch norm ─▶ mean over H, W ─▶ linear          s ─▶ mean over H, W ─▶ (scale and shift ∘ linear)

For every such operator P below a chain of maps per channel on `s`, P is also written down on `s` itself, and
P's own result gets a second meaning: the chain's map, on the axis where the channels then lie, of
P(s). Whether that is used is for the cost to say; if not, the second P is dead code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reparamkit.algebra import (
    IDENTITY,
    AffineMap,
    Geometry,
    Inexact,
    Map,
    Numbers,
    Scalar,
    ScalarMap,
    affine,
    geometry,
)
from reparamkit.algebra.layout import Layout
from reparamkit.folding.forms import Node
from reparamkit.operators import Affine, Meaning, Move, Opaque, Part, Value

_MOST = 64  # values that a chain may cover; every operator below looks up all of it, and networks may be long


@dataclass(frozen=True)
class Chain:
    """What lies above an operator: `structure` applied to `root`, by way of the values `covers`."""

    root: Value
    structure: Map
    load: Callable[[], Numbers]
    covers: tuple[int, ...]


def chain_above(nodes: Sequence[Node], meaning: Move) -> Chain | None:
    """The chain of maps per channel that ends in the operator's operand; None if there is none."""
    parts: list[Part] = []
    covers: list[int] = []
    current = meaning.value
    while True:
        node = nodes[current.id]
        part = _sunk_or_per_channel(node)
        if part is None:
            break
        covers.append(node.id)
        if not isinstance(node.meaning, Affine) or node.meaning.averages:
            assert node.instead is not None
            covers += node.instead.covers
        if len(covers) > _MOST:
            return None
        parts.append(part)
        current = part.value
    structure = composed_structure(parts)
    if structure is None or (isinstance(structure, Scalar) and structure.identity):
        return None
    return Chain(current, structure, lambda: composed_numbers(parts), tuple(covers))


def as_move(meaning: Meaning) -> Move | None:
    """The meaning of an operator that lets maps per channel pass; None for any other."""
    if isinstance(meaning, Affine) and meaning.averages:
        (part,) = meaning.parts
        assert isinstance(part.structure, Geometry)
        last = range(part.value.ndim - part.structure.dims, part.value.ndim)
        return Move(part.value, lambda layout: layout if layout.is_closed(last) else None)
    return meaning if isinstance(meaning, Move) else None


def below(chain: Chain, move: Move, result: Value, moved: Value) -> Part | None:
    """The chain's map on the result of the operator, `moved` being that operator's value on the root."""
    if isinstance(chain.structure, Scalar):
        return Part(moved, chain.structure, chain.load)
    if chain.structure.outputs == 1:
        return Part(moved, Scalar(chain.structure.has_bias), lambda: _one_channel(chain.load()))
    above = Layout.of(move.value.sizes, move.value.ndim - 1 - chain.structure.dims)
    layout = None if above is None else move.carry(above)
    if layout is None:
        return None
    axis = layout.channel_axis
    if axis is None or result.ndim - 1 - axis > 3:
        return None
    dims = result.ndim - 1 - axis
    structure = geometry.channelwise(result.shape[axis], dims, has_bias=chain.structure.has_bias)

    def load() -> Numbers:
        above = chain.load()
        assert isinstance(above, AffineMap)
        mine = layout.channels().flatten()
        bias = None if above.bias is None else above.bias[mine]
        return affine.channelwise(above.kernel.flatten()[mine], bias, dims)

    return Part(moved, structure, load)


def _one_channel(numbers: Numbers) -> ScalarMap:
    assert isinstance(numbers, AffineMap)
    return ScalarMap(float(numbers.kernel), 0.0 if numbers.bias is None else float(numbers.bias))


def per_channel(meaning: Meaning | None) -> Part | None:
    """The one map per channel (or the same everywhere) that a meaning is; None if it is anything else."""
    if not isinstance(meaning, Affine) or len(meaning.parts) != 1:
        return None
    part = meaning.parts[0]
    if not isinstance(part.structure, Scalar) and not part.structure.per_channel:
        return None
    return part


def composed_structure(parts: Sequence[Part]) -> Map | None:
    """The structure of a chain of maps, the last to act first; None if they do not fit together."""
    structure: Map = Scalar(identity=True)
    for part in reversed(parts):
        try:
            structure = geometry.compose(part.structure, structure)
        except Inexact:
            return None
    return structure


def composed_numbers(parts: Sequence[Part]) -> Numbers:
    """The same with numbers."""
    numbers: Numbers = IDENTITY
    for part in reversed(parts):
        numbers = affine.compose(part.load(), numbers)
    return numbers


def _sunk_or_per_channel(node: Node) -> Part | None:
    if isinstance(node.meaning, Move | Opaque) or (
        isinstance(node.meaning, Affine) and node.meaning.averages
    ):
        return None if node.instead is None else node.instead.part
    return per_channel(node.meaning)
