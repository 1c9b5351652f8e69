"""Maps per channel one behind the other, as one map."""

from __future__ import annotations

from collections.abc import Sequence

from reparamkit.algebra import IDENTITY, Inexact, Map, Numbers, Scalar, affine, geometry
from reparamkit.operators import Affine, Meaning, Part


def per_channel(meaning: Meaning | None) -> Part | None:
    """The one map per channel (or the same everywhere) that a meaning is; None if it is anything else."""
    if not isinstance(meaning, Affine) or len(meaning.parts) != 1:
        return None
    part = meaning.parts[0]
    if not part.value.dtype.is_floating_point:
        return None
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
