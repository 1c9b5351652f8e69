"""What a reference computed on every probe: all that it takes to judge a candidate, without the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from reparamkit.verify.judge import Budgets, Rule, judge
from reparamkit.verify.record import Record
from reparamkit.verify.runners import TorchRunner, open_runner
from reparamkit.verify.verdict import Equivalence

FACTOR = 4.0
FLOOR_ULPS = 8.0
FLOOR_ULPS_FLOAT64 = 64.0
ENOUGH_ELEMENTS = 64
RESOLUTION = 0.25


@dataclass
class Recorded:
    """Outputs of a reference, probe by probe.

    Attributes:
        records: the reference's outputs and its rounding noise on each probe.
        oracle: "float64", or "float32" where the reference's own run had to serve as the oracle.
        precision: the dtype whose units in the last place the floor of the budget is counted in.
        structured: the output names come from a Python structure (see `Runner`).
        seed: what the probes are drawn from.
        notes: what a reader of a verdict must know.
        floor_ulps: the floor of the budget in units in the last place; None for the usual one.
    """

    records: list[Record]
    oracle: str
    precision: torch.dtype
    structured: bool
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    floor_ulps: float | None = None

    @property
    def output_names(self) -> list[str]:
        """The names of the reference's outputs, in order."""
        return [truth.name for truth in self.records[0].truths]

    def budgets(self) -> Budgets:
        """What a candidate's outputs may be off by: the formula of `reparamkit.verify.reference`."""
        eps = torch.finfo(self.precision).eps
        for truth in self.records[0].truths:
            if truth.values.is_floating_point():
                real = torch.empty((), dtype=truth.dtype).abs().dtype
                eps = max(eps, torch.finfo(real).eps)
        ulps = self.floor_ulps
        if ulps is None:
            ulps = FLOOR_ULPS_FLOAT64 if eps == torch.finfo(torch.float64).eps else FLOOR_ULPS
        return Budgets(self.records, FACTOR, ulps * eps, ENOUGH_ELEMENTS, RESOLUTION)

    def judge(
        self,
        candidate: object,
        *,
        rule: Rule | None = None,
        measured: bool = False,
        same_dtypes: bool = True,
    ) -> Equivalence:
        """Compare a candidate (anything that `open_runner` opens) with the reference, on every probe.

        Args:
            rule, measured, same_dtypes: as in `reparamkit.verify.judge`.

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
        verdict = judge(
            runner,
            self.records,
            self.budgets(),
            structured=self.structured,
            rule=rule,
            measured=measured,
            same_dtypes=same_dtypes,
        )
        exact = self.oracle == "float64"
        return replace(
            verdict,
            seed=self.seed,
            oracle=self.oracle,
            notes=(*notes, *verdict.notes),
            e0=verdict.e0 if exact else None,
            outputs=tuple(entry if exact else replace(entry, e0=None) for entry in verdict.outputs),
        )

    def with_records(self, records: Sequence[Record], precision: torch.dtype, ulps: float) -> Recorded:
        """The same reference with other records, and the floor in this precision."""
        return Recorded(
            list(records), self.oracle, precision, self.structured, self.seed, list(self.notes), ulps
        )
