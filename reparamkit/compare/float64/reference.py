"""The reference of a comparison, and the budget that a candidate's error has to stay under.

For one output, let y64 be the reference's float64 run, and take the probes in groups of like magnitude
(`reparamkit.compare.inputs.probes`). Over a group

    S  = max |y64|              the output's scale
    E0 = max |y − y64| / S      the reference's own rounding error, y being its run in its own precision

and a candidate whose output is z passes on a probe of that group when

    E1 = max |z − y64| / S  ≤  4·E0 + floor,      floor = 8 eps (64 eps for float64)

eps belongs to the network's least precise weights. S and E0 are taken over the whole group, and not probe by
probe, because both are extremes of a random sample: an output of one element has a rounding error of 0 every
now and then, and a value near 0 as often. Normal draws are added until every output has 64 elements in their
group (or there are eight draws). A group of few elements (the example, large values, impulses) is judged with
the normal group's E0 where that is larger, and with its S too if it has fewer than 64.

The same holds for every channel, with a scale and a noise of its own (`reparamkit.compare.channels`).
Integers and booleans must equal the reference's own run, except where that run and y64 disagree (a tie). A
probe on which the candidate fails is looked at again (`reparamkit.compare.float64.second_look`): where only
rounding differs that the network itself blows up, it is set aside, and said so.

What cannot be told is never a pass. NaN or infinity on one side fails; where nothing is left that could
differ (`reparamkit.compare.evidence`), or the reference gives other outputs for the same input
(`reparamkit.compare.randomness`), the verdict is that it cannot be told.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from reparamkit.compare.budgets import ENOUGH_ELEMENTS
from reparamkit.compare.float64.record import Recorder, Rejected, lowest_precision
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.run import Run
from reparamkit.compare.float64.second_look import SecondLook
from reparamkit.compare.inputs.probes import (
    GIVEN,
    NORMAL,
    Probe,
    at_sizes,
    probes,
    thorough_probes,
)
from reparamkit.compare.inputs.sizes import (
    Accepts,
    FreeSizes,
    InnerSizes,
    example_sizes,
    larger_sizes,
    special_sizes,
)
from reparamkit.compare.randomness import said_of
from reparamkit.errors import UnusableInput
from reparamkit.runners.open import open_runner
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves
from reparamkit.support.isolation import call_untouched

_MOST_DRAWS = 8
_SIZES_WANTED = 2
_LARGER = "a larger size"


class Reference(Recorded):
    """A network, run once on every probe, that any number of candidates can be judged against.

    It keeps the reference's outputs and the example, not the inputs of the probes and no copy of the module.

    Args:
        subject: an `nn.Module`, an `ExportedProgram`, the path of a file, or a `Runner`. A module is run as a
            copy in evaluation mode if it is in training mode, and is never changed.
        args, kwargs: the example, as the forward takes it.
        seed: what the probes are drawn from.
        free: the sizes that may vary; see `widen`.
        planned: the probes to try at the example's size, the example first, in place of those of
            `reparamkit.compare.inputs.probes.probes`. More normal draws are added as the formula above says.

    Attributes:
        module: the module that runs, in evaluation mode; None for another back end. Not to be changed.

    Raises:
        UnusableInput: the reference cannot be opened, or rejects the example.
    """

    def __init__(
        self,
        subject: object,
        args: Args,
        kwargs: Kwargs | None = None,
        *,
        seed: int = 0,
        free: FreeSizes | None = None,
        planned: Sequence[Probe] | None = None,
    ) -> None:
        self._runner = open_runner(subject)
        super().__init__([], "", torch.float32, self._runner.structured, seed)
        self._args, self._kwargs = args, kwargs or {}
        self.module: nn.Module | None = None
        if isinstance(self._runner, TorchRunner):
            self.module = self._runner.module
            if self._runner.was_training:
                self.notes.append("the reference is in training mode; a copy in evaluation mode was compared")
        self.precision = lowest_precision(self.module, self._args, self._kwargs)
        stated = getattr(self._runner, "precision", "")
        if self.module is None and stated in ("float16", "bfloat16"):
            self.precision = getattr(torch, stated)
        self.second = SecondLook(self._runner, self.module, self.precision, seed)
        self._extendable = planned is None
        recorder = Recorder(self._runner, self.module, self.precision, seed, watch=True)
        self._record_fixed(recorder, probes(args, self._kwargs, seed=seed) if planned is None else planned)
        self.oracle = recorder.oracle
        self.notes += recorder.notes
        if free is not None:
            self._widen(free, recorder)

    def widen(self, free: FreeSizes) -> None:
        """Add probes at other sizes along free axes. Once there are some, this does nothing.

        Sizes that the reference rejects are passed over; if none is left, a note says so.
        """
        if free.axes and not any(record.probe.sizes for record in self.records):
            self._widen(free, self._settled_recorder())

    def _widen(self, free: FreeSizes, recorder: Recorder) -> None:
        if not free.axes:
            return
        planned = probes(self._args, self._kwargs, seed=self.seed, dynamic_axes=free.axes, ranges=free.ranges)
        tried, taken = "", 0
        for probe in planned:
            if not probe.sizes or taken == _SIZES_WANTED:
                continue
            if free.accepts is not None and not free.accepts(*probe.inputs()):
                continue
            try:
                self.records.append(recorder.record(probe))
                taken += 1
            except Rejected as reason:
                tried = tried or f" (tried {probe.name}: {reason})"
        sizes = example_sizes([tensor for _, tensor in tensor_leaves(self._args, self._kwargs)], free.axes)
        probe = Probe("", "", self.seed, self._args, self._kwargs, free.axes)
        special = at_sizes(probe, special_sizes(sizes, free.ranges))
        self.try_sizes(special, free.accepts, recorder, empty=True)
        if free.inner is not None:
            larger = at_sizes(probe, {_LARGER: larger_sizes(sizes, free.ranges)})[_LARGER]
            self._try_larger(recorder, larger, free.inner, free.inner(sizes), free.accepts)
        if not any(record.probe.sizes for record in self.records):
            self.notes.append(f"free axes were compared at the example's size only{tried}")

    def _try_larger(
        self,
        recorder: Recorder,
        proposed: Sequence[Probe],
        inner: InnerSizes,
        of_example: Sequence[int],
        accepts: Accepts | None,
    ) -> None:
        """Add probes until each size inside the network is another than in the example at one of them."""
        seen = [inner(record.probe.sizes) for record in self.records if record.probe.sizes]
        alike = {i for i, size in enumerate(of_example) if all(sizes[i] == size for sizes in seen)}
        for probe in proposed:
            now = inner(probe.sizes)
            telling = {i for i in alike if now[i] != of_example[i]}
            if not telling or (accepts is not None and not accepts(*probe.inputs())):
                continue
            run = _run_on(recorder, probe)
            if run is not None:
                self.records.append(run)
                alike -= telling

    def try_sizes(
        self,
        proposals: Mapping[str, Sequence[Probe]],
        accepts: Accepts | None = None,
        recorder: Recorder | None = None,
        *,
        empty: bool = False,
    ) -> list[str]:
        """Add one probe of each kind of size: the first that the reference runs on, with numbers to show.

        Args:
            proposals: kind ("another size", "minimal size") -> probes, best first.
            accepts: whether inputs are of sizes that are meant to work.
            recorder: what has run on the example already.
            empty: an output without elements will do.

        Returns:
            The kinds of which no proposal was taken.
        """
        missed = []
        for kind, proposed in proposals.items():
            for probe in proposed:
                if accepts is not None and not accepts(*probe.inputs()):
                    continue
                try:
                    recorder = recorder or self._settled_recorder()
                    run = recorder.record(probe)
                except Rejected:
                    continue
                if all(truth.finite or (empty and not truth.values.numel()) for truth in run.truths):
                    self.records.append(run)
                    break
            else:
                missed.append(kind)
        return missed

    def _settled_recorder(self) -> Recorder:
        """A recorder's first record settles which oracle there is: that is for the example to say."""
        recorder = Recorder(self._runner, self.module, self.precision, self.seed)
        recorder.record(self.records[0].probe)
        return recorder

    def _record_fixed(self, recorder: Recorder, planned: Sequence[Probe]) -> None:
        """The probes at the example's own size."""
        for probe in planned:
            try:
                self.records.append(recorder.record(probe))
            except Rejected as reason:
                if probe.group in GIVEN:
                    if recorder.drawn:
                        raise UnusableInput(said_of(recorder.drawn, "the network")) from reason
                    which = "" if probe is planned[0] else f" ({probe.name})"
                    raise UnusableInput(f"the model rejects the example inputs{which}: {reason}") from reason
                recorder.notes.append(
                    f"the probe {probe.name!r} was left out: the reference rejects it: {reason}"
                )
        if recorder.drawn:
            self.random = said_of(recorder.drawn, "the network")
        if tensor_leaves(self._args, self._kwargs):
            self._draw_enough(recorder)

    def _more_probes(self) -> bool:
        """What `reparamkit.compare.compare` tries as well: an output may be evidence there."""
        if not self._extendable:
            return False
        self._extendable = False
        return self._added(
            probe
            for probe in thorough_probes(self._args, self._kwargs, seed=self.seed)
            if probe.name not in {record.probe.name for record in self.records}
        )

    def _more_draws(self) -> bool:
        normal = [record.probe for record in self.records if record.probe.group == NORMAL]
        plain = [probe for probe in normal if not probe.sizes]
        if not plain:
            return False
        return self._added(_draws_like(plain[0], len(plain)))

    def _added(self, planned: Iterable[Probe]) -> bool:
        """Run these probes as well, those that the reference takes; whether there was one."""
        before = len(self.records)
        try:
            recorder = self._settled_recorder()
        except Rejected:
            return False
        runs = (_run_on(recorder, probe) for probe in planned)
        self.records += [run for run in runs if run is not None]
        return len(self.records) > before

    def _draw_enough(self, recorder: Recorder) -> None:
        normal = [record for record in self.records if record.probe.group == NORMAL]
        for probe in _draws_like(normal[0].probe, len(normal)) if normal else ():
            if _fewest(normal) >= ENOUGH_ELEMENTS:
                return
            run = _run_on(recorder, probe)
            if run is None:
                return
            normal.append(run)
            self.records.append(run)


def _draws_like(probe: Probe, count: int) -> list[Probe]:
    """More normal draws, where there are so many."""
    return [replace(probe, name=f"normal {number}") for number in range(count + 1, _MOST_DRAWS + 1)]


def _run_on(recorder: Recorder, probe: Probe) -> Run | None:
    """The reference on a probe; None where it rejects that."""
    try:
        return recorder.record(probe)
    except Rejected:
        return None


def _fewest(records: list[Run]) -> int:
    """The number of floating-point elements of the output that has the fewest over these records."""
    counts = [
        sum(record.truths[place].finite for record in records)
        for place, truth in enumerate(records[0].truths)
        if truth.values.is_floating_point() and truth.values.numel()
    ]
    return min(counts, default=ENOUGH_ELEMENTS)


def inputs_accepted_by(program: torch.export.ExportedProgram) -> Accepts:
    """Whether an exported program's own guards let inputs through."""
    return runs_on(functools.partial(call_untouched, program.module()))


def runs_on(call: Callable[[Args, Kwargs], object]) -> Accepts:
    """Whether a call raises nothing on inputs."""

    def accepts(args: Args, kwargs: Kwargs) -> bool:
        try:
            call(args, kwargs)
        except Exception:
            return False
        return True

    return accepts
