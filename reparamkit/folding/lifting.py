"""Maps per channel rise through operators that treat every channel alike.

    linear ─▶ transpose ─▶ reshape ─▶ (· γ)          (γ ∘ linear) ─▶ transpose ─▶ reshape

The mirror image of `sinking`, for a map that what lies above the operators can take in. The map on the
channels' axis up there becomes a node that never runs as it is: it exists only inside folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reparamkit.algebra import AffineMap, Geometry, Map, Numbers, affine, geometry
from reparamkit.folding.forms import Node
from reparamkit.folding.sinking import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Meaning, Part, Through, Value

_LONGEST = 16  # maps in a row; every one of them looks up its chain, and networks may be long


@dataclass(frozen=True)
class Lift:
    """`structure` on `root` instead of the maps below the operators `path` (the nearest to the root first).

    `skipped` are the values between the operators and the last of the maps.
    """

    root: Value
    path: tuple[int, ...]
    skipped: tuple[int, ...]
    structure: Map
    load: Callable[[], Numbers]


def lift(nodes: Sequence[Node], meaning: Meaning) -> Lift | None:
    """The other way to compute a map per channel; None if nothing above would take it in."""
    parts = [part for part in (per_channel(meaning),) if part is not None]
    if not parts:
        return None
    while (above := per_channel(nodes[parts[-1].value.id].meaning)) is not None:
        parts.append(above)
        if len(parts) > _LONGEST:
            return None
    chain = composed_structure(parts)
    if not isinstance(chain, Geometry):
        return None
    value, path = parts[-1].value, []
    axis: int | None = value.ndim - 1 - chain.dims
    while isinstance(through := nodes[value.id].meaning, Through):
        if axis not in through.axes:
            return None
        axis = through.axes.index(axis)
        path.append(value.id)
        value = through.value
    if not path or axis is None or not isinstance(nodes[value.id].meaning, Affine):
        return None
    dims = value.ndim - 1 - axis
    if dims > 3:
        return None
    structure = geometry.channelwise(chain.outputs, dims, has_bias=chain.has_bias)

    def load() -> Numbers:
        below = composed_numbers(parts)
        assert isinstance(below, AffineMap)
        return affine.channelwise(below.kernel.flatten(), below.bias, dims)

    skipped = tuple(part.value.id for part in reversed(parts[:-1]))
    return Lift(value, tuple(reversed(path)), skipped, structure, load)


def meaning_of(found: Lift) -> Affine:
    """The map on the root."""
    return Affine((Part(found.root, found.structure, found.load),))
