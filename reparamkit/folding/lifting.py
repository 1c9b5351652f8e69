"""Maps per channel rise through operators that treat every channel alike.

    linear ─▶ transpose ─▶ reshape ─▶ (· γ)          (γ ∘ linear) ─▶ transpose ─▶ reshape

The mirror image of `sinking`, for a map that what lies above the operators can take in. The map on the
channels' axis up there becomes a node that never runs as it is: it exists only inside folds. Above a
concatenation of channels there is one for each of its operands, with that operand's part of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from reparamkit.algebra import AffineMap, Geometry, Numbers, affine, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.folding.forms import Node
from reparamkit.folding.sinking import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Concat, Meaning, Move, Part, Value

_LONGEST = 16  # maps in a row; every one of them looks up its chain, and networks may be long


@dataclass(frozen=True)
class Lift:
    """`parts` instead of the maps below the operators `path` (the nearest to what the parts read first).

    `skipped` are the values between the operators and the last of the maps.
    """

    parts: tuple[Part, ...]
    path: tuple[int, ...]
    skipped: tuple[int, ...]


def lift(nodes: Sequence[Node], meaning: Meaning) -> Lift | None:
    """The other way to compute a map per channel; None if nothing above would take it in."""
    parts = [part for part in (per_channel(meaning),) if part is not None]
    if not parts:
        return None
    while (further := per_channel(nodes[parts[-1].value.id].meaning)) is not None:
        parts.append(further)
        if len(parts) > _LONGEST:
            return None
    chain = composed_structure(parts)
    if not isinstance(chain, Geometry):
        return None
    value, path = parts[-1].value, []
    moves: list[Move] = []
    while isinstance(move := nodes[value.id].meaning, Move):
        if move.cuts:
            return None  # what else reads the value would have to do without the map
        moves.append(move)
        path.append(value.id)
        value = move.value
    axis = _axis_above(value, moves, parts[-1].value, parts[-1].value.ndim - 1 - chain.dims)
    if axis is None:
        return None
    roots: tuple[Value, ...] = (value,)
    above = nodes[value.id].meaning
    if isinstance(above, Concat) and above.axis == axis:
        path.append(value.id)
        roots = above.values
    if not path or not all(isinstance(nodes[root.id].meaning, Affine) for root in roots):
        return None
    if len({root.id for root in roots}) < len(roots):
        return None
    dims = value.ndim - 1 - axis
    risen, first = [], 0
    for root in roots:
        channels = root.shape[axis]
        structure = geometry.channelwise(channels, dims, has_bias=chain.has_bias)
        risen.append(Part(root, structure, partial(_part_of, parts, dims, first, channels)))
        first += channels
    skipped = tuple(part.value.id for part in reversed(parts[:-1]))
    return Lift(tuple(risen), tuple(reversed(path)), skipped) if first == chain.outputs else None


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


def _part_of(chain: Sequence[Part], dims: int, first: int, channels: int) -> Numbers:
    """The chain's map of some of the channels, for a tensor of `dims` spatial axes."""
    below = composed_numbers(chain)
    assert isinstance(below, AffineMap)
    mine = slice(first, first + channels)
    return affine.channelwise(
        below.kernel.flatten()[mine], None if below.bias is None else below.bias[mine], dims
    )
