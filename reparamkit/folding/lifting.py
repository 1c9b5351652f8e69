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
from reparamkit.operators import Affine, Meaning, Part, Through, Value


@dataclass(frozen=True)
class Lift:
    """`structure` on `root` instead of the map below the operators `path` (the nearest to the root first)."""

    root: Value
    path: tuple[int, ...]
    structure: Map
    load: Callable[[], Numbers]


def lift(nodes: Sequence[Node], meaning: Meaning) -> Lift | None:
    """The other way to compute a map per channel; None if nothing above would take it in."""
    if not isinstance(meaning, Affine) or len(meaning.parts) != 1:
        return None
    part = meaning.parts[0]
    if not isinstance(part.structure, Geometry):
        return None
    if not (part.structure.channelwise and part.structure.pointwise):
        return None
    value, path = part.value, []
    axis: int | None = value.ndim - 1 - part.structure.dims
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
    structure = geometry.channelwise(part.structure.outputs, dims, has_bias=part.structure.has_bias)

    def load() -> Numbers:
        below = part.load()
        assert isinstance(below, AffineMap)
        return affine.channelwise(below.kernel.flatten(), below.bias, dims)

    return Lift(value, tuple(reversed(path)), structure, load)


def meaning_of(found: Lift) -> Affine:
    """The map on the root."""
    return Affine((Part(found.root, found.structure, found.load),))
