"""Maps per channel one behind the other, as one map."""

from __future__ import annotations

from collections.abc import Sequence

from reparamkit.algebra import IDENTITY, Inexact, Map, Numbers, Scalar, affine, geometry
from reparamkit.operators import Affine, Meaning, Term


def per_channel(meaning: Meaning | None) -> Term | None:
    """The one map per channel (or the same everywhere) that a meaning is; None if it is anything else."""
    if not isinstance(meaning, Affine) or len(meaning.terms) != 1:
        return None
    term = meaning.terms[0]
    if not term.value.dtype.is_floating_point:
        return None
    if not isinstance(term.structure, Scalar) and not term.structure.per_channel:
        return None
    return term


def composed_structure(terms: Sequence[Term]) -> Map | None:
    """The structure of a chain of maps, the last to act first; None if they do not fit together."""
    structure: Map = Scalar(identity=True)
    for term in reversed(terms):
        try:
            structure = geometry.compose(term.structure, structure)
        except Inexact:
            return None
    return structure


def composed_numbers(terms: Sequence[Term]) -> Numbers:
    """The same with numbers."""
    numbers: Numbers = IDENTITY
    for term in reversed(terms):
        numbers = affine.compose(term.load(), numbers)
    return numbers
