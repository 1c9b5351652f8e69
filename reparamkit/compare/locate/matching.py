"""Which values of two runs are the same numbers: within the reference's own rounding error at that place.

With y64 and y a value of the reference in float64 and in its own precision, and |·| the Euclidean norm,

    N = |y − y64| / |y64|        a value z agrees where   |z − y64| / |y64|  ≤  8·N + floor,   floor = 8 eps

which is the rule of `reparamkit.compare.float64.reference`, twice as wide because a place inside has no group
of
probes that its noise could be taken over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from reparamkit.compare.locate.sketch import Sketch, distance
from reparamkit.compare.locate.trace import NotTraceable, Trace

FACTOR = 8.0
FLOOR_ULPS = 8.0


@dataclass(frozen=True)
class Pair:
    """A value of the candidate and the one of the reference that it is held against."""

    candidate: int
    reference: int
    error: float


class Truth:
    """The values of the reference and how far off each may be.

    Args:
        exact: its run in float64, or the best there is.
        own: a run that differs from `exact` by rounding, value by value.
        eps: of the candidate's precision.
        ratio: how much more the candidate rounds than `own` does.

    Raises:
        NotTraceable: the two runs do not take the same steps.
    """

    def __init__(self, exact: Trace, own: Trace, eps: float, ratio: float) -> None:
        if [value.operator for value in exact.values] != [value.operator for value in own.values]:
            raise NotTraceable("the reference takes other steps in float64 than in its own precision")
        self.exact = exact
        pairs = zip(own.values, exact.values, strict=True)
        distances = [distance(left.sketch, right.sketch) for left, right in pairs]
        self.noise = [FACTOR * ratio * each + FLOOR_ULPS * eps for each in distances]
        groups: dict[int, list[int]] = defaultdict(list)
        for index, value in enumerate(exact.values):
            if value.sketch is not None and math.isfinite(self.noise[index]):
                groups[math.prod(value.shape)].append(index)
        self._groups = {
            count: (indices, torch.stack([_sketch(exact, index) for index in indices]))
            for count, indices in groups.items()
        }

    def error(self, sketch: Sketch | None, reference: int) -> float:
        """How far a candidate's value is from one of the reference's."""
        return distance(sketch, self.exact.values[reference].sketch)

    def agrees(self, sketch: Sketch | None, reference: int) -> bool:
        """Whether they are the same to within rounding."""
        return self.error(sketch, reference) <= self.noise[reference]

    def near(self, sketch: Sketch | None, count: int) -> list[tuple[float, int]]:
        """Error and index of all values of the reference with so many elements, nearest first."""
        if sketch is None or count not in self._groups:
            return []
        indices, sketches = self._groups[count]
        errors = (sketches - sketch).norm(dim=1) / sketches.norm(dim=1)
        ranked = zip(errors.tolist(), indices, strict=True)
        return sorted((error, index) for error, index in ranked if math.isfinite(error))

    def same(self, sketch: Sketch | None, count: int) -> list[tuple[float, int]]:
        """Those of `near` that agree."""
        return [(error, index) for error, index in self.near(sketch, count) if error <= self.noise[index]]


@dataclass(frozen=True)
class Matched:
    """What agrees: the candidate's values with their nearest counterparts, and all counterparts."""

    pairs: dict[int, Pair]
    references: frozenset[int]


def match(truth: Truth, candidate: Trace, sketches: Mapping[int, Sketch | None] | None = None) -> Matched:
    """Find every value of the candidate that agrees with one of the reference.

    Args:
        sketches: of the candidate's values, by index; those of the trace where nothing is given.
    """
    own_sketches = {index: value.sketch for index, value in enumerate(candidate.values)}
    pairs: dict[int, Pair] = {}
    references: set[int] = set()
    for index, sketch in (own_sketches if sketches is None else sketches).items():
        same = truth.same(sketch, math.prod(candidate.values[index].shape))
        if same:
            error, reference = same[0]
            pairs[index] = Pair(index, reference, error)
            references |= {each for _, each in same}
    return Matched(pairs, frozenset(references))


def _sketch(trace: Trace, index: int) -> Sketch:
    sketch = trace.values[index].sketch
    assert sketch is not None
    return sketch
