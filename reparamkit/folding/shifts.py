"""Constants per channel that are added to one side of a sum leave the sum.

    (u + β) + v   ──▶   (u + v) + β

What reads the sum, if it is a linear layer or an unpadded convolution, takes β into its own bias, though the
sum has two sources: so does the β of ConvNeXt V2's response normalisation, γ·x·n + β + x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reparamkit.algebra import AffineMap, Geometry, Numbers, Scalar, ScalarMap, affine
from reparamkit.folding.forms import Node
from reparamkit.operators import Affine, Meaning, Part, Value


@dataclass(frozen=True)
class Shifted:
    """`below` is a side of a sum, `root` what it is without its shift, `parts` the sum without it."""

    below: Value
    root: Value
    parts: tuple[Part, ...]
    factor: Part
    shifting: Part

    def shift(self, bare: Value) -> Part:
        """The sum, made of `bare`, its value without the shift."""
        structure = self.shifting.structure
        return Part(bare, structure, self._load)

    def _load(self) -> Numbers:
        numbers, factor = self.shifting.load(), self.factor.load()
        assert isinstance(numbers, AffineMap)
        assert isinstance(factor, ScalarMap)
        assert numbers.bias is not None
        return affine.with_bias(numbers, numbers.bias * factor.alpha)


def shifted_side(nodes: Sequence[Node], meaning: Meaning) -> Shifted | None:
    """The side of a sum of two values that is `x + β`; None if there is none."""
    if not isinstance(meaning, Affine) or len(meaning.parts) != 2:
        return None
    if meaning.parts[0].value.id == meaning.parts[1].value.id:
        return None
    for index, part in enumerate(meaning.parts):
        below = nodes[part.value.id]
        if not isinstance(part.structure, Scalar) or part.structure.has_bias or not _only_adds(below):
            continue
        assert isinstance(below.meaning, Affine)
        (shifting,) = below.meaning.parts
        parts = list(meaning.parts)
        parts[index] = replace(part, value=shifting.value)
        if parts[0].value.id != parts[1].value.id:
            return Shifted(part.value, shifting.value, tuple(parts), part, shifting)
    return None


def _only_adds(node: Node) -> bool:
    """Whether a node is `x + β` with a constant per channel, and not `β - x`."""
    if not isinstance(node.meaning, Affine) or len(node.meaning.parts) != 1:
        return False
    (part,) = node.meaning.parts
    if not isinstance(part.structure, Geometry) or not part.structure.per_channel:
        return False
    if not part.structure.has_bias or node.operator not in ("aten.add.Tensor", "aten.sub.Tensor"):
        return False
    numbers = part.load()
    return isinstance(numbers, AffineMap) and bool((numbers.kernel == 1.0).all())
