"""One network against all its mutations: what each really does, and what the checker says of it.

The reference is recorded once, as `reparamkit check` records it at the example's size, and once more on as
many inputs from [0, 1) only, as other tools do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random

import torch
from torch import Generator, Tensor

from reparamkit.compare.compare import compare
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.probes import NORMAL, Probe, thorough_probes
from reparamkit.compare.measure import as_real
from reparamkit.compare.verdict import Equivalence
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.runners.open import open_runner
from tests.compare.mutations.mutations import KINDS, Mutation, weight_off_by_a_little
from tests.compare.mutations.networks import Network
from tests.compare.mutations.onnx_file import OnnxFile, OnnxMutation
from tests.compare.mutations.onnx_mutations import ONNX_KINDS, with_weights_of
from tests.compare.mutations.refolds import Refold, refolds
from tests.compare.mutations.true_effect import effect, run_module, run_onnx, zero_mean_inputs

TORCH, ONNX = "torch", "onnx"
NEITHER, PASSED, OTHER_PROBE, BORDER, FALSE_ALARM = "", "passed", "other probe", "border", "false alarm"

_HEAVY = ("mobileone_s1", "mobileone_s4", "repvgg_d2se", "fastvit_sa12")
_BORDER = 0.5
_EDGE = 1.5
_TRIES = 100

Double = Callable[[tuple[Tensor, ...]], list[Tensor]]


@dataclass(frozen=True)
class Result:
    """One mutation and what became of it.

    Attributes:
        number: its place among the network's mutations of this candidate.
        effect: its true effect, of the output's scale; that of the output nearest to its budget or beyond.
        budget: what the checker allows that output on normal values.
        changed: it changes the float64 output of the fold in at least one bit.
        caught: the checker does not call the two the same.
        caught_by_unit_inputs: the same with inputs from [0, 1) only.
        below: of a mutation whose effect is within the budget: whether it passed, was caught because a probe
            of another kind shows more of it, was caught with at least half the budget of true effect on
            such a probe (rounding did the rest), or for no good reason.
        reason: what the checker says.
    """

    network: str
    candidate: str
    number: int
    kind: str
    where: str
    effect: float
    budget: float
    changed: bool
    caught: bool
    caught_by_unit_inputs: bool
    below: str
    reason: str

    @property
    def exceeds(self) -> bool:
        """Whether the true effect is beyond the budget, so that the mutation has to be caught."""
        return self.effect > self.budget

    @property
    def missed(self) -> bool:
        return self.exceeds and not self.caught

    @property
    def at_the_edge(self) -> bool:
        """It is so near the budget that the draw decides whether it is caught.

        A true effect is the largest of more random inputs than the checker has, and its largest is larger.
        """
        return self.exceeds and self.effect <= _EDGE * self.budget


@dataclass(frozen=True)
class Pair:
    """A network and its own fold or file, which the checker has to call the same."""

    network: str
    candidate: str
    sizes: str
    same: bool
    reason: str


class Trials:
    """A network with its records, ready to be mutated."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network = network
        self.seed = seed
        self.inputs = zero_mean_inputs(network.example, seed)
        self.truth = run_module(network.original64, self.inputs)
        planned = thorough_probes(network.example, {}, seed=seed)
        self.recorded = Reference(network.original, network.example, seed=seed, planned=planned)
        unit = [_from_unit_interval(network.example, seed, number) for number in range(len(planned))]
        self.unit = Reference(network.original, unit[0].args, seed=seed, planned=unit)
        budgets = self.recorded.budgets()
        self.budgets = [budgets.budget(place, NORMAL) for place in range(len(self.truth))]
        self._refolds = refolds(network, Random(f"{seed}/{network.name}/refolds"))
        self._refolded: list[Refold] = []
        self._unmutated = {
            TORCH: run_module(network.folded64, self.inputs),
            ONNX: run_onnx(network.onnx, self.inputs),
        }
        self._shapes = [values.shape for _, values in open_runner(network.original).run(network.example, {})]

    def pairs(self) -> Iterator[Pair]:
        """The network against its own fold and file: at the example's size, and at others by `compare`."""
        network = self.network
        for candidate, subject in ((TORCH, network.folded), (ONNX, network.path)):
            verdict = self.recorded.judge(subject, measured=True)
            yield Pair(network.name, candidate, _sizes(network.example), verdict.passed, verdict.reason)
            if network.name not in _HEAVY:
                found = compare(network.original, subject, inputs=network.other, seed=self.seed).comparison
                sizes = f"{_sizes(network.other)} and others"
                yield Pair(network.name, candidate, sizes, found.passed, found.reason)

    def results(self, candidate: str, count: int, only: int | None = None) -> Iterator[Result]:
        """Judge `count` different mutations of the fold ("torch") or of the file ("onnx").

        Args:
            only: nothing but the mutation of this number.
        """
        done = 0
        for number, mutation in enumerate(self._proposals(candidate)):
            if done == count:
                return
            result = self._result(mutation, candidate, number) if only in (None, number) else None
            if result is not None:
                done += 1
                yield result

    def near_the_budget(self, count: int) -> Iterator[Result]:
        """Judge `count` mutations of the fold with effects from far below the budget to far beyond it."""
        random = Random(f"{self.seed}/{self.network.name}/near")
        for number in range(count):
            mutation = weight_off_by_a_little(self.network.folded, random)
            result = self._result(mutation, TORCH, number) if mutation is not None else None
            if result is not None:
                yield result

    def _proposals(self, candidate: str) -> Iterator[Mutation | OnnxMutation]:
        """All kinds by turns, and every fourth time a fold of a changed original, while there are any."""
        random = Random(f"{self.seed}/{self.network.name}/{candidate}")
        refolded: Iterator[Mutation | OnnxMutation]
        if candidate == TORCH:
            ordinary = _by_turns([partial(kind, self.network.folded, random) for kind in KINDS], random)
            refolded = (refold.mutation() for refold in self._all_refolds())
        else:
            file = OnnxFile(self.network.onnx)
            ordinary = _by_turns([partial(kind, file, random) for kind in ONNX_KINDS], random)
            written = (with_weights_of(each, self.network.folded, file) for each in self._all_refolds())
            refolded = (mutation for mutation in written if mutation is not None)
        for number, mutation in enumerate(ordinary):
            yield mutation
            if number % 3 == 2:
                yield from islice(refolded, 1)

    def _all_refolds(self) -> Iterator[Refold]:
        """Folds of changed originals, each made once, when it is asked for."""
        yield from self._refolded
        for refold in self._refolds:
            self._refolded.append(refold)
            yield refold

    def _result(self, mutation: Mutation | OnnxMutation, candidate: str, number: int) -> Result | None:
        """None where the mutated network does not run, or gives outputs of other shapes."""
        try:
            with _opened(self.network, mutation) as (subject, double):
                shapes = [values.shape for _, values in open_runner(subject).run(self.network.example, {})]
                if shapes != self._shapes:
                    return None
                return self._judged(mutation, candidate, number, subject, double)
        except _DoesNotRun:
            return None

    def _judged(
        self, mutation: Mutation | OnnxMutation, candidate: str, number: int, subject: object, double: Double
    ) -> Result:
        outputs = double(self.inputs)
        effects = effect(outputs, self.truth)
        place = max(range(len(effects)), key=lambda place: effects[place] / self.budgets[place])
        same = all(map(torch.equal, outputs, self._unmutated[candidate]))
        verdict = self.recorded.judge(subject, measured=True)
        below = NEITHER
        if effects[place] <= self.budgets[place]:
            below = PASSED if verdict.passed else self._why_caught(verdict, double)
        return Result(
            network=self.network.name,
            candidate=candidate,
            number=number,
            kind=mutation.kind,
            where=mutation.where,
            effect=effects[place],
            budget=self.budgets[place],
            changed=not same,
            caught=not verdict.passed,
            caught_by_unit_inputs=not self.unit.judge(subject).passed,
            below=below,
            reason=verdict.reason,
        )

    def _why_caught(self, verdict: Equivalence, double: Double) -> str:
        """What the mutation truly does on the probes that it failed."""
        worst = 0.0
        for record in self.recorded.records:
            failed = [
                entry for entry in verdict.outputs if entry.probe == record.probe.name and not entry.passed
            ]
            if not failed:
                continue
            args, _ = record.probe.inputs()
            inputs = tuple(values.double() for values in args)
            outputs, truth = double(inputs), run_module(self.network.original64, inputs)
            places = {name.name: place for place, name in enumerate(record.truths)}
            for entry in failed:
                place = places[entry.output]
                error = float((as_real(outputs[place]) - as_real(truth[place])).abs().max())
                worst = max(worst, error / entry.scale / entry.budget)
        return OTHER_PROBE if worst > 1 else BORDER if worst >= _BORDER else FALSE_ALARM


class _DoesNotRun(Exception):
    """A mutation that leaves no network."""


@contextmanager
def _opened(network: Network, mutation: Mutation | OnnxMutation) -> Iterator[tuple[object, Double]]:
    """The mutated network as the checker takes it, and its float64 run."""
    if isinstance(mutation, OnnxMutation):
        model = mutation.apply(network.onnx)
        try:
            runner = OnnxRuntimeRunner(network.path, model)
            runner.run(network.example, {})
        except Exception as error:
            raise _DoesNotRun from error
        yield runner, partial(run_onnx, model)
        return
    with mutation.apply(network.folded) as single, mutation.apply(network.folded64) as double:
        try:
            open_runner(single).run(network.example, {})
        except Exception as error:
            raise _DoesNotRun from error
        yield single, partial(run_module, double)


def _by_turns(
    kinds: Sequence[Callable[[], Mutation | OnnxMutation | None]], random: Random
) -> Iterator[Mutation | OnnxMutation]:
    """Different mutations, the kinds by turns from a random one on, until hardly anything new is found."""
    seen: set[tuple[str, str]] = set()
    turn, in_vain = random.randrange(len(kinds)), 0
    while in_vain < _TRIES:
        mutation = kinds[turn % len(kinds)]()
        turn += 1
        if mutation is None or (mutation.kind, mutation.where) in seen:
            in_vain += 1
            continue
        in_vain = 0
        seen.add((mutation.kind, mutation.where))
        yield mutation


def _from_unit_interval(example: tuple[Tensor, ...], seed: int, number: int) -> Probe:
    generator = Generator().manual_seed(1000 * seed + number)
    drawn = tuple(torch.rand(values.shape, generator=generator) for values in example)
    return Probe(f"unit interval {number}", "unit interval", seed, drawn, {}, fixed=True)


def _sizes(inputs: tuple[Tensor, ...]) -> str:
    return ", ".join("x".join(map(str, values.shape)) for values in inputs)
