"""Find the first value of a candidate that is wrong, and prove it.

The values that agree are known by their numbers, not by their names (`reparamkit.compare.locate.matching`).
Everything that a wrong output was computed from, back to values that agree, may be wrong:

    the suspects  =  all values on a path from one that agrees to a wrong output, in either network

A folded network has values that the original lacks, so a suspect need not be wrong. A pair of suspects, c
of the candidate and r of the reference, is *proven* when the candidate, run with r's numbers in place of c,
gives right results from there on: right outputs, or a right value behind another layer with weights. Then r
is what c should have been. c and r differ, so what is wrong lies between the values that agree and c. The
first pair that can be proven is the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reparamkit.compare.locate.matching import Matched, Pair, Truth, match
from reparamkit.compare.locate.trace import Clock, NotTraceable, TookTooLong, Trace, Tracer

_MOST_PARTNERS = 6
_MOST_TRIALS = 64
_LAYERS_BEHIND = 8
_JUMP = 10.0


@dataclass(frozen=True)
class Found:
    """What the search came to.

    Attributes:
        matched: the values that agree.
        ours, theirs: the values of reference and candidate among which the wrong one is.
        pair: the first proven pair; the wrong output where nothing before it could be proven.
        before: the largest error among what goes into `theirs`.
        behind: pairs of values behind the proven one.
        proven: the pair was proven.
        reason: why there is no answer; empty where there is one.
    """

    matched: Matched
    ours: set[int]
    theirs: set[int]
    pair: Pair
    before: float
    behind: tuple[Pair, ...]
    proven: bool
    reason: str = ""


class Search:
    """One search. Raises as `run` does.

    Args:
        reference, candidate: the networks.
        truth: the reference's values.
        trace: the candidate's.
    """

    def __init__(
        self, reference: Tracer, truth: Truth, candidate: Tracer, trace: Trace, clock: Clock
    ) -> None:
        self._reference, self._truth = reference, truth
        self._candidate, self._trace = candidate, trace
        self._clock = clock
        ours, theirs = truth.exact.outputs, trace.outputs
        if len(ours) != len(theirs):
            raise NotTraceable("the two have other numbers of outputs that depend on the input")
        self._wrong = [
            Pair(c, r, truth.error(trace.values[c].sketch, r))
            for r, c in zip(ours, theirs, strict=True)
            if trace.values[c].sketch is not None and not truth.agrees(trace.values[c].sketch, r)
        ]

    def run(self) -> Found:
        """Search.

        Raises:
            NotTraceable: nothing is wrong with the values that were seen, or they cannot be seen.
        """
        if not self._wrong:
            raise NotTraceable(
                "run so that its inner values can be seen, the candidate agrees: the error is within the "
                "rounding of a whole tensor, or made by the back end's optimisations"
            )
        matched = match(self._truth, self._trace)
        ours = self._truth.exact.before([pair.reference for pair in self._wrong], matched.references)
        theirs = self._trace.before([pair.candidate for pair in self._wrong], matched.pairs)
        reason, proven = "", None
        try:
            proven = self._first_proven(sorted(theirs), ours)
        except TookTooLong:
            reason = "the time for it was used up"
        pair = proven or self._wrong[0]
        if proven is not None:
            ours = self._truth.exact.before([pair.reference], matched.references)
            theirs = self._trace.before([pair.candidate], matched.pairs)
        before = [
            matched.pairs[parent]
            for index in theirs
            for parent in self._trace.values[index].parents
            if parent in matched.pairs
        ]
        ratios = [each.error / self._truth.noise[each.reference] for each in before]
        if not reason and pair.error / self._truth.noise[pair.reference] < _JUMP * max([0.1, *ratios]):
            reason = "the error grows by degrees, and at no place by more than rounding does"
        behind = self._behind(pair) if proven is not None else tuple(self._wrong)
        worst = max((each.error for each in before), default=0.0)
        return Found(matched, ours, theirs, pair, worst, behind, proven is not None, reason)

    def _first_proven(self, suspects: list[int], ours: set[int]) -> Pair | None:
        outputs = {pair.candidate for pair in self._wrong}
        # A value that the reference has right before the suspects: the candidate may have changed it.
        eligible = ours | {parent for index in ours for parent in self._truth.exact.values[index].parents}
        trials = 0
        for index in suspects:
            value = self._trace.values[index]
            if index in outputs or value.operator == "input" or value.sketch is None:
                continue
            near = self._truth.near(value.sketch, math.prod(value.shape))
            partners = [(error, other) for error, other in near if other in eligible]
            # Under the same module first: a wrong value may be nearer to any other than to the right one.
            partners.sort(key=lambda each: not _related(self._truth.exact.values[each[1]].place, value.place))
            partners = partners[:_MOST_PARTNERS]
            tensors = self._reference.tensors([other for _, other in partners]) if partners else {}
            proven = []
            for error, other in partners:
                self._clock.check()
                trials += 1
                if trials > _MOST_TRIALS:
                    return None
                if self._proves(index, other, tensors[other]):
                    proven.append(Pair(index, other, error))
            if proven:
                return min(proven, key=lambda pair: pair.error)
        return None

    def _proves(self, index: int, reference: int, tensor: torch.Tensor) -> bool:
        layers = sorted(each for each in self._trace.behind(index) if self._trace.values[each].heavy)
        layers = [each for each in layers if each not in self._trace.outputs][:_LAYERS_BEHIND]
        wanted = [*layers, *(pair.candidate for pair in self._wrong)]
        sketches = self._candidate.replaced(index, tensor, wanted)
        if all(self._truth.agrees(sketches.get(pair.candidate), pair.reference) for pair in self._wrong):
            return True
        return any(
            self._truth.same(sketches.get(layer), math.prod(self._trace.values[layer].shape))
            and not self._truth.same(
                self._trace.values[layer].sketch, math.prod(self._trace.values[layer].shape)
            )
            for layer in layers
        )

    def _behind(self, pair: Pair) -> tuple[Pair, ...]:
        """What each value behind a proven pair should have been, and how far off it is."""
        tensor = self._reference.tensors([pair.reference])[pair.reference]
        places = self._trace.behind(pair.candidate)
        right = match(self._truth, self._trace, self._candidate.replaced(pair.candidate, tensor, places))
        later = [
            Pair(each.candidate, each.reference, self._truth.error(sketch, each.reference))
            for each in right.pairs.values()
            if each.candidate in places and (sketch := self._trace.values[each.candidate].sketch) is not None
        ]
        return tuple(sorted(later, key=lambda each: each.candidate))


def _related(left: str, right: str) -> bool:
    """Whether one path is the other, or holds it."""
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    return bool(shorter) and (longer == shorter or longer.startswith(f"{shorter}."))
