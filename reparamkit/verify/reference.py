"""The reference of a comparison, and the budget that a candidate's error has to stay under.

For one output, let y64 be the reference's float64 run, and take the probes in groups of like magnitude
(`reparamkit.verify.probes`). Over a group

    S  = max |y64|              the output's scale
    E0 = max |y − y64| / S      the reference's own rounding error, y being its run in its own precision

and a candidate whose output is z passes on a probe of that group when

    E1 = max |z − y64| / S  ≤  4·E0 + floor,      floor = 8 eps (64 eps for float64)

eps belongs to the network's least precise weights. S and E0 are taken over the whole group, and not probe by
probe, because both are extremes of a random sample: an output of one element has a rounding error of 0 every
now and then, and a value near 0 as often. Normal draws are added until every output has 64 elements in their
group (or there are eight draws). A group of few elements (the example, large values, impulses) is judged with
the normal group's E0 where that is larger, and with its S too if it has fewer than 64.

Integers and booleans must equal the reference's own run, except where that run and y64 disagree (a tie).

What cannot be told is never a pass: NaN or infinity on one side fails, and where nothing is left to compare
(every output empty, NaN, or with a budget above a quarter of its scale) `UnusableInput` is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.inputs import Args, Kwargs, tensor_leaves
from reparamkit.untouched import call_untouched
from reparamkit.verify.judge import Budgets, judge
from reparamkit.verify.probes import EXAMPLE, NORMAL, Probe, another_draw, probes
from reparamkit.verify.record import Record, Recorder, Rejected, lowest_precision
from reparamkit.verify.runners import Runner, TorchRunner, open_runner
from reparamkit.verify.sizes import DynamicAxes, Ranges
from reparamkit.verify.verdict import Equivalence

FACTOR = 4.0
FLOOR_ULPS = 8.0
FLOOR_ULPS_FLOAT64 = 64.0
ENOUGH_ELEMENTS = 64
RESOLUTION = 0.25

_MOST_DRAWS = 8
_SIZES_WANTED = 2

Accepts = Callable[[Args, Kwargs], bool]


class Reference:
    """A network, run once on every probe, that any number of candidates can be judged against.

    It keeps the reference's outputs and the example, not the inputs of the probes and no copy of the module.

    Args:
        subject: an `nn.Module`, an `ExportedProgram`, the path of a file, or a `Runner`. A module is run as a
            copy in evaluation mode if it is in training mode, and is never changed.
        args, kwargs: the example, as the forward takes it.
        seed: what the probes are drawn from.
        dynamic_axes, ranges: axes that are free, as in `reparamkit.verify.sizes`; see also `widen`.
        accepts: see `widen`.

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
        dynamic_axes: DynamicAxes | None = None,
        ranges: Ranges | None = None,
        accepts: Accepts | None = None,
    ) -> None:
        self.seed = seed
        self.notes: list[str] = []
        self.records: list[Record] = []
        self._args, self._kwargs = args, kwargs or {}
        self._runner = open_runner(subject)
        self._module: nn.Module | None = None
        if isinstance(self._runner, TorchRunner):
            self._module = self._runner.module
            if self._runner.was_training:
                self.notes.append("the reference is in training mode; a copy in evaluation mode was compared")
        self.precision = lowest_precision(self._module, self._args, self._kwargs)
        recorder = self._recorder()
        self._record_fixed(recorder)
        self.oracle = recorder.oracle
        self.notes += recorder.notes
        del recorder
        if dynamic_axes:
            self.widen(dynamic_axes, ranges, accepts)

    def widen(
        self, dynamic_axes: DynamicAxes, ranges: Ranges | None = None, accepts: Accepts | None = None
    ) -> None:
        """Add probes at other sizes along free axes. Once there are some, this does nothing.

        Sizes that the reference rejects are passed over; if none is left, a note says so.

        Args:
            dynamic_axes: flat tensor index -> axis -> symbol.
            ranges: symbol -> (smallest, largest size).
            accepts: a further word on whether sizes are meant to work, for instance the guards of an
                exported program. It is asked with the probe's inputs.
        """
        if not dynamic_axes or any(record.probe.sizes for record in self.records):
            return
        recorder = self._recorder()
        recorder_notes: list[str] = []
        taken = 0
        for probe in probes(
            self._args, self._kwargs, seed=self.seed, dynamic_axes=dynamic_axes, ranges=ranges
        ):
            if not probe.sizes or taken == _SIZES_WANTED:
                continue
            if accepts is not None and not accepts(*probe.inputs()):
                continue
            try:
                if not taken:
                    # A recorder's first record settles which oracle there is: the example's to say.
                    recorder.record(self.records[0].probe)
                self.records.append(recorder.record(probe))
                taken += 1
            except Rejected as reason:
                recorder_notes.append(f"{probe.name}: {reason}")
        if not taken:
            tried = f" (tried {recorder_notes[0]})" if recorder_notes else ""
            self.notes.append(f"free axes were compared at the example's size only{tried}")

    def judge(self, candidate: object) -> Equivalence:
        """Compare a candidate (anything that `open_runner` opens) with the reference, on every probe.

        Returns:
            The verdict. A candidate that raises, or whose outputs differ in number, name, shape or dtype,
            is not equivalent, and the verdict's `reason` says in what.

        Raises:
            UnusableInput: the candidate cannot be opened or takes other inputs, or nothing could be compared.
        """
        runner = open_runner(candidate)
        notes = list(self.notes)
        if isinstance(runner, TorchRunner) and runner.was_training:
            notes.append("the candidate is in training mode; a copy in evaluation mode was compared")
        verdict = judge(runner, self.records, self._budgets(), structured=self._runner.structured)
        return replace(
            verdict,
            seed=self.seed,
            oracle=self.oracle,
            notes=(*notes, *verdict.notes),
            e0=verdict.e0 if self.oracle == "float64" else None,
            outputs=tuple(
                entry if self.oracle == "float64" else replace(entry, e0=None) for entry in verdict.outputs
            ),
        )

    @property
    def output_names(self) -> list[str]:
        """The names of the reference's outputs, in order."""
        return [truth.name for truth in self.records[0].truths]

    def _budgets(self) -> Budgets:
        eps = torch.finfo(self.precision).eps
        for truth in self.records[0].truths:
            if truth.values.is_floating_point():
                real = torch.empty((), dtype=truth.dtype).abs().dtype
                eps = max(eps, torch.finfo(real).eps)
        ulps = FLOOR_ULPS_FLOAT64 if eps == torch.finfo(torch.float64).eps else FLOOR_ULPS
        return Budgets(self.records, FACTOR, ulps * eps, ENOUGH_ELEMENTS, RESOLUTION)

    def _recorder(self) -> Recorder:
        return Recorder(self._runner, self._module, self.precision, self.seed)

    def _record_fixed(self, recorder: Recorder) -> None:
        """The probes at the example's own size."""
        for probe in probes(self._args, self._kwargs, seed=self.seed):
            try:
                self.records.append(recorder.record(probe))
            except Rejected as reason:
                if probe.group == EXAMPLE:
                    raise UnusableInput(f"the model rejects the example inputs: {reason}") from reason
                recorder.notes.append(
                    f"the probe {probe.name!r} was left out: the reference rejects it: {reason}"
                )
        if tensor_leaves(self._args, self._kwargs):
            self._draw_enough(recorder)

    def _draw_enough(self, recorder: Recorder) -> None:
        normal = [record for record in self.records if record.probe.group == NORMAL]
        for number in range(len(normal) + 1, _MOST_DRAWS + 1):
            if not normal or _fewest(normal) >= ENOUGH_ELEMENTS:
                return
            try:
                normal.append(recorder.record(another_draw(normal[0].probe, number)))
            except Rejected:
                return
            self.records.append(normal[-1])


def _fewest(records: list[Record]) -> int:
    """The number of floating-point elements of the output that has the fewest over these records."""
    counts = [
        sum(record.truths[place].finite for record in records)
        for place, truth in enumerate(records[0].truths)
        if truth.values.is_floating_point() and truth.values.numel()
    ]
    return min(counts, default=ENOUGH_ELEMENTS)


def inputs_accepted_by(program: torch.export.ExportedProgram) -> Accepts:
    """Whether an exported program's own guards let inputs through."""
    module: Any = program.module()

    def accepts(args: Args, kwargs: Kwargs) -> bool:
        try:
            call_untouched(module, args, kwargs)
        except Exception:
            return False
        return True

    return accepts


__all__ = ["Accepts", "Probe", "Reference", "Runner", "inputs_accepted_by"]
