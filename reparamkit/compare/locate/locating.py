"""Choose inputs on which two networks differ, look into both, and say where they begin to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from reparamkit.compare.adapt import Adapted
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.probes import DEGENERATE, Probe
from reparamkit.compare.locate.location import Location, Step
from reparamkit.compare.locate.matching import Pair, Truth
from reparamkit.compare.locate.onnx_side import OnnxTracer
from reparamkit.compare.locate.search import Found, Search
from reparamkit.compare.locate.sketch import Sketcher
from reparamkit.compare.locate.torch_side import TorchTracer
from reparamkit.compare.locate.trace import Clock, Inputs, NotTraceable, TookTooLong, Trace, Tracer
from reparamkit.compare.verdict import Equivalence, exceeds
from reparamkit.runners.base import Runner, match_inputs
from reparamkit.runners.jitter import jitter_parameters
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.text import first_line

SECONDS = 120.0
"""How long to look, at most."""

_JITTERED = 0.25
"""How much of what weights that are off by up to 4 ulp do counts as rounding, which is off by half of one."""
_PROBES = 3
_LARGEST = 1 << 26
_MOST_STEPS = 30
_AROUND = 4


def locate(
    reference: Reference,
    ours: Runner,
    candidate: Adapted,
    precision: str,
    verdict: Equivalence,
    *,
    seconds: float = SECONDS,
) -> Location:
    """Find the first place at which the candidate's values differ from the reference's.

    Args:
        reference: the recorded reference.
        ours: what runs it.
        candidate: called as the reference is.
        precision: the candidate's.
        verdict: what the comparison found; it has not passed.
        seconds: the time after which to give up.

    Returns:
        The place, or why it is not known. Whatever goes wrong on the way is such a reason: the verdict
        stands without it.
    """
    chosen = _probes(reference, verdict)
    if not chosen:
        return Location(False, "", reason="no inputs give outputs that could be followed back")
    if precision == "int8":
        return Location(False, chosen[0].name, reason="every value of a quantised network differs somewhat")
    clock = Clock.of(seconds)
    location = Location(False, chosen[0].name, reason="the time for it was used up")
    for probe in chosen:
        try:
            here = _on(probe, reference, ours, candidate, precision, clock)
        except TookTooLong:
            break
        except NotTraceable as error:
            here = Location(False, probe.name, reason=str(error))
        except (Exception, MemoryError) as error:
            here = Location(False, probe.name, reason=f"looking inside fails: {first_line(error)}")
        if here.found:
            return here
        if probe is chosen[0]:
            location = here
    return location


def _probes(reference: Reference, verdict: Equivalence) -> list[Probe]:
    """Failing probes, the worst first; those that hide rounding by their symmetry, and other sizes, last."""
    probes = {record.probe.name: record.probe for record in reference.records}
    worst: dict[str, float] = {}
    for entry in verdict.outputs:
        if not entry.passed and entry.probe in probes:
            worst[entry.probe] = max(worst.get(entry.probe, 0.0), exceeds(entry))

    def rank(name: str) -> tuple[int, float]:
        probe = probes[name]
        return (probe.group in DEGENERATE) + 2 * bool(probe.sizes), -worst[name]

    return [probes[name] for name in sorted(worst, key=rank)][:_PROBES]


def _on(
    probe: Probe, reference: Reference, ours: Runner, candidate: Adapted, precision: str, clock: Clock
) -> Location:
    sketcher = Sketcher()
    tracer, exact, own, ratio = _reference(probe, reference, ours, sketcher, clock)
    largest = max((math.prod(value.shape) for value in exact.values), default=0)
    if largest > _LARGEST:
        raise NotTraceable(f"a value of {largest} elements is too large to be looked at")
    theirs = _tracer(
        candidate.candidate.runner, lambda: candidate.converted(*probe.inputs()), sketcher, clock
    )
    theirs.expect(largest)
    own_eps = torch.finfo(reference.precision).eps
    eps = max(torch.finfo(getattr(torch, precision)).eps, own_eps)
    truth = Truth(exact, own, eps, ratio * eps / own_eps)
    trace = theirs.trace()
    difference = Search(tracer, truth, theirs, trace, clock).run()
    return _location(probe, truth, trace, difference)


def _reference(
    probe: Probe, reference: Reference, ours: Runner, sketcher: Sketcher, clock: Clock
) -> tuple[Tracer, Trace, Trace, float]:
    """What to take values from, the best run, one off it by rounding, and how much of that counts."""
    module = reference.module
    if module is None:
        tracer = _tracer(ours, probe.inputs, sketcher, clock)
        assert isinstance(tracer, OnnxTracer)
        return tracer, tracer.trace(), tracer.jittered(reference.seed).trace(), _JITTERED

    def of(
        dtype: torch.dtype | None, prepare: Callable[[torch.nn.Module], None] | None = None
    ) -> TorchTracer:
        return TorchTracer(module, probe.inputs, sketcher, clock, dtype=dtype, prepare=prepare)

    own = of(None)
    if reference.precision is torch.float64:
        ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        return own, own.trace(), of(torch.float32).trace(), ratio
    if reference.oracle == "float64":
        # Its own values stand in for the candidate's, as right as any: a float64 run can take far longer.
        return own, of(torch.float64).trace(), own.trace(), 1.0
    moved_copy = of(None, lambda copy: jitter_parameters(copy, reference.seed))
    return own, own.trace(), moved_copy.trace(), _JITTERED


def _tracer(runner: Runner, inputs: Callable[[], Inputs], sketcher: Sketcher, clock: Clock) -> Tracer:
    if isinstance(runner, TorchRunner):
        return TorchTracer(runner.module, inputs, sketcher, clock)
    if isinstance(runner, OnnxRuntimeRunner):
        return OnnxTracer(runner.path, _fed(runner, inputs()), sketcher, clock)
    raise NotTraceable(f"{runner.name} does not show the values inside")


def _fed(runner: OnnxRuntimeRunner, inputs: Inputs) -> dict[str, object]:
    matched = match_inputs(runner.declared, tensor_leaves(*inputs), runner.path.name)
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in matched.items()}


def _location(probe: Probe, truth: Truth, trace: Trace, difference: Found) -> Location:
    reference = [truth.exact.values[index] for index in sorted(difference.ours)]
    candidate = [trace.values[index] for index in sorted(difference.theirs)]
    candidate = [value for value in candidate if value.operator != "input"]
    working = [value for value in candidate if not value.passes] or candidate[-1:]
    working.sort(key=lambda value: not value.heavy)
    nodes = tuple(dict.fromkeys(value.label for value in working))
    layers = sum(value.heavy for value in working)
    place = _holding([value.place for value in reference if value.operator != "input"])
    place = place or _holding([value.place for value in candidate])
    last = [
        pair for index, pair in difference.matched.pairs.items() if index < min(difference.theirs, default=0)
    ]
    after = truth.exact.values[last[-1].reference].label if last else ""
    reason = difference.reason
    if not reason and layers > 1 and not (difference.proven and place):
        reason = (
            f"no single place explains it: more than one may be wrong, or the two are built differently. "
            f"It is among {layers} layers, the first of which is {nodes[0]}"
        )
    elif not reason and not place and len(nodes) > 1 and layers != 1:
        reason = f"it is among {len(nodes)} operators, the first of which is {nodes[0]}"
    return Location(
        found=not reason,
        probe=probe.name,
        place="" if reason else place,
        nodes=() if reason else nodes,
        error=None if reason else difference.pair.error,
        before=None if reason else difference.before,
        after=after,
        reason=reason,
        growth=_growth(truth, trace, difference),
    )


def _holding(places: list[str]) -> str:
    """The innermost module that holds all these."""
    paths = [place.split(".") for place in dict.fromkeys(places)]
    if not paths:
        return ""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _growth(truth: Truth, trace: Trace, difference: Found) -> tuple[Step, ...]:
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
    if count <= _MOST_STEPS:
        return list(range(count))
    kept = {0, count - 1, *range(max(0, turn - _AROUND), min(count, turn + _AROUND))}
    rest = [place for place in range(count) if place not in kept]
    room = _MOST_STEPS - len(kept)
    kept |= {rest[round(i * (len(rest) - 1) / max(room - 1, 1))] for i in range(room)}
    return sorted(kept)
