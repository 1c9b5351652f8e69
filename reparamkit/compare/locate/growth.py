"""The error along the network, thinned out to what a reader can take in."""

from __future__ import annotations

from reparamkit.compare.locate.location import Step
from reparamkit.compare.locate.matching import Pair, Truth
from reparamkit.compare.locate.search import Found
from reparamkit.compare.locate.trace import Trace

MOST = 30
_AROUND = 4


def growth(truth: Truth, trace: Trace, difference: Found) -> tuple[Step, ...]:
    """At most 30 places in the candidate's order, more of them near the place where it goes wrong."""
    pairs = {**difference.matched.pairs, **{pair.candidate: pair for pair in difference.behind}}
    pairs[difference.pair.candidate] = difference.pair
    steps: list[Step] = []
    turn = 0
    for index, pair in sorted(pairs.items()):
        step = _step(truth, trace, pair)
        if trace.values[index].operator == "input":
            continue
        if steps and (steps[-1].place, steps[-1].node) == (step.place, step.node):
            steps.pop()
        steps.append(step)
        if index == difference.pair.candidate:
            turn = len(steps) - 1
    return tuple(steps[place] for place in _kept(len(steps), turn))


def _step(truth: Truth, trace: Trace, pair: Pair) -> Step:
    theirs, ours = trace.values[pair.candidate], truth.exact.values[pair.reference]
    noise = truth.noise[pair.reference]
    return Step(ours.place or theirs.place, theirs.label, pair.error, noise, pair.error <= noise)


def _kept(count: int, turn: int) -> list[int]:
    if count <= MOST:
        return list(range(count))
    kept = {0, count - 1, *range(max(0, turn - _AROUND), min(count, turn + _AROUND))}
    rest = [place for place in range(count) if place not in kept]
    room = MOST - len(kept)
    kept |= {rest[round(i * (len(rest) - 1) / max(room - 1, 1))] for i in range(room)}
    return sorted(kept)
