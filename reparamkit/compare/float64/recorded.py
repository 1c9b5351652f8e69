"""What a reference computed on every probe: all that it takes to judge a candidate, without the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from reparamkit.compare.budgets import Budgets
from reparamkit.compare.float64.orders import only_order_differs
from reparamkit.compare.float64.run import Run
from reparamkit.compare.float64.second_look import SecondLook, in_double
from reparamkit.compare.inputs.probes import NORMAL
from reparamkit.compare.judge import Rule, conclude, judge
from reparamkit.compare.noise import PerAxis
from reparamkit.compare.randomness import drawn_outputs, said_of
from reparamkit.compare.verdict import Equivalence
from reparamkit.runners.base import Runner
from reparamkit.runners.open import open_runner
from reparamkit.runners.torch import TorchRunner

FLOOR_ULPS = 8.0
FLOOR_ULPS_FLOAT64 = 64.0


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
        second: looks again at probes on which a candidate fails; None where the reference is not at hand.
        random: why nothing can be compared with it, where the reference is random; else empty.
        other_order: what `in_another_order` gives, where that is known.
    """

    records: list[Run]
    oracle: str
    precision: torch.dtype
    structured: bool
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    floor_ulps: float | None = None
    second: SecondLook | None = None
    random: str = ""
    other_order: tuple[list[Run], str] | None = None

    @property
    def output_names(self) -> list[str]:
        """The names of the reference's outputs, in order."""
        return [truth.name for truth in self.records[0].truths]

    def budgets(self, moved: dict[int, PerAxis] | None = None) -> Budgets:
        """What a candidate's outputs may be off by: the formula of `reparamkit.compare.float64.reference`.

        Args:
            moved: as in `Budgets`.
        """
        eps = torch.finfo(self.precision).eps
        for truth in self.records[0].truths:
            if truth.values.is_floating_point():
                real = torch.empty((), dtype=truth.dtype).abs().dtype
                eps = max(eps, torch.finfo(real).eps)
        ulps = self.floor_ulps
        if ulps is None:
            ulps = FLOOR_ULPS_FLOAT64 if eps == torch.finfo(torch.float64).eps else FLOOR_ULPS
        return Budgets(self.records, ulps * eps, eps, moved)

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
            rule, measured, same_dtypes: as in `reparamkit.compare.judge`.

        Returns:
            The verdict. A candidate that raises, or whose outputs differ in number, name, shape or dtype,
            is not equivalent, and the verdict's `reason` says in what. Where it cannot be told, `untold`
            says why.

        Raises:
            UnusableInput: the candidate cannot be opened or takes other inputs.
        """
        runner = open_runner(candidate)
        notes = list(self.notes)
        if isinstance(runner, TorchRunner) and runner.was_training:
            notes.append("the candidate is in training mode; a copy in evaluation mode was compared")
        if self.random:
            return self._untold(self.random, notes)
        settings: dict[str, Any] = {
            "structured": self.structured,
            "rule": rule,
            "measured": measured,
            "same_dtypes": same_dtypes,
        }
        verdict = judge(runner, self.records, self.budgets(), **settings)
        if verdict.differs and rule is None:
            verdict = self._with_orders(runner, verdict, settings)
        elif verdict.untold and self._more_probes():
            verdict = judge(runner, self.records, self.budgets(), **settings)
        if verdict.differs:
            verdict = self._of_random(runner, verdict)
        exact = self.oracle == "float64"
        return replace(
            verdict,
            seed=self.seed,
            oracle=self.oracle,
            notes=(*notes, *verdict.notes),
            e0=verdict.e0 if exact else None,
            outputs=tuple(entry if exact else replace(entry, e0=None) for entry in verdict.outputs),
        )

    def _with_orders(self, runner: Runner, verdict: Equivalence, settings: dict[str, Any]) -> Equivalence:
        """The verdict of a second look, which allows for another order of sums where nothing else differs."""
        narrow, said, unknown = self.records, "", False
        if not verdict.broken_probes:
            failed = {entry.probe for entry in verdict.outputs if not entry.passed}
            failing = [record for record in narrow if record.probe.name in failed]
            wide, said = self.in_another_order()
            if said:
                order = only_order_differs(runner, failing, self.second, self.budgets(), settings)
                unknown = order is None
                said = said if order else ""
        if said:
            self.records = wide
            verdict = judge(runner, wide, self.budgets(), **settings)
        try:
            if verdict.differs and self.second is not None:
                verdict = self._again(runner, verdict, self.second, settings)
        finally:
            if said:  # the next candidate is judged by the narrow budgets first, too
                self.records = [*narrow, *self.records[len(wide) :]]
        if unknown and verdict.differs:
            budgets = self._changed(records=wide).budgets()
            if not judge(runner, wide, budgets, **settings).differs:
                return self._of_unknown_order(runner, verdict)
        return replace(verdict, notes=(said, *verdict.notes)) if said else verdict

    def _again(
        self, runner: Runner, verdict: Equivalence, second: SecondLook, settings: dict[str, Any]
    ) -> Equivalence:
        """The verdict once probes of rounding alone are set aside."""
        budgets = self.budgets()
        failing = [entry for entry in verdict.outputs if not entry.passed]
        if failing and not verdict.broken_probes and all(entry.channel is not None for entry in failing):
            names = {entry.probe for entry in failing}
            sized = [record for record in self.records if not record.probe.sizes]
            chosen = [record for record in sized if record.probe.name in names][:2] or sized[:1]
            budgets = self.budgets(second.moved(chosen, budgets))
            verdict = judge(runner, self.records, budgets, **settings)
        aside: dict[str, str] = {}
        double = _in_double(runner) if verdict.differs else None
        structured = self.structured and runner.structured
        while verdict.differs:
            failed = {entry.probe for entry in verdict.outputs if not entry.passed} | {*verdict.broken_probes}
            here = [record for record in self.records if record.probe.name in failed]
            for record in sorted(here, key=lambda record: not _is_plain(record)):
                if record.probe.name not in aside:
                    why = second.excuse(runner, double, record, budgets, structured=structured)
                    if not why:
                        return verdict
                    aside[record.probe.name] = why
            if self._enough_left(aside):
                notes = [note for note in verdict.notes if note not in self.notes]
                anew = conclude(
                    self.records,
                    budgets,
                    verdict.outputs,
                    verdict.broken_probes,
                    set_aside=aside,
                    notes=notes,
                )
                return replace(anew, seconds=verdict.seconds)
            if not self._more_draws():
                normal = [record for record in here if _is_plain(record)]
                if all(second.excuse(runner, None, each, budgets, structured=structured) for each in normal):
                    return self._on_too_many(verdict, aside)
                return verdict  # the reference is not to blame: the candidate blows rounding up by itself
            budgets = self.budgets()
            verdict = judge(runner, self.records, budgets, **settings)
        return verdict

    def in_another_order(self) -> tuple[list[Run], str]:
        """The records with what long sums are off by in another order in their rounding error.

        Returns:
            They, and what is to be said of them; the records as they are and "" where there are no such sums.
        """
        known = self.other_order is not None and len(self.other_order[0]) == len(self.records)
        if self.second is not None and not known:
            self.other_order = self.second.in_turn(self.records)
        return self.other_order or (self.records, "")

    def _on_too_many(self, verdict: Equivalence, aside: dict[str, str]) -> Equivalence:
        why = (
            f"on too many probes ({', '.join(aside)}) what differs may be rounding that the network blows "
            f"up: {next(iter(aside.values()))}"
        )
        return replace(self._untold(why, []), outputs=verdict.outputs, set_aside=aside)

    def _of_unknown_order(self, runner: Runner, verdict: Equivalence) -> Equivalence:
        why = (
            f"{verdict.reason}. Adding up the reference's long sums in another order changes as much, but "
            f"{runner.name} does not say in which it does, and it is none of the usual ones: this may be a "
            f"real difference. To decide by limits of your own, use check with --atol or --rtol"
        )
        return replace(self._untold(why, []), outputs=verdict.outputs)

    def _enough_left(self, aside: dict[str, str]) -> bool:
        """Whether the probes that are left carry a verdict: most of the normal ones."""
        normal = [record.probe.name for record in self.records if _is_plain(record)]
        names = normal or [record.probe.name for record in self.records]
        left = [name for name in names if name not in aside]
        return 2 * len(left) > len(names)

    def _of_random(self, runner: Runner, verdict: Equivalence) -> Equivalence:
        """The verdict with a word on it where the candidate is random."""
        failed = {entry.probe for entry in verdict.outputs if not entry.passed}
        for record in self.records:
            if record.probe.name in failed:
                try:
                    names = drawn_outputs(runner, record.probe)
                except Exception:
                    break
                if names:
                    return replace(verdict, reason=f"{said_of(names, 'the candidate')}; {verdict.reason}")
                break
        return verdict

    def _more_probes(self) -> bool:
        """Try further kinds of probes, where there are any; whether there are more now."""
        return False

    def _more_draws(self) -> bool:
        """Draw more normal values; whether there are more now."""
        return False

    def _untold(self, why: str, notes: Sequence[str]) -> Equivalence:
        """A verdict without numbers."""
        floor = self.budgets().floor
        return Equivalence(
            passed=False,
            e0=None,
            e1=math.inf,
            floor=floor,
            budget=floor,
            oracle=self.oracle,
            outputs=(),
            seed=self.seed,
            notes=tuple(notes),
            reason=why,
            untold=why,
        )

    def with_records(self, records: Sequence[Run], precision: torch.dtype, ulps: float) -> Recorded:
        """The same reference with other records, and the floor in this precision."""
        return self._changed(
            records=list(records), precision=precision, floor_ulps=ulps, second=None, other_order=None
        )

    def narrowed(self, keep: Callable[[Run], bool]) -> Recorded:
        """The same reference with some of the records only, the example's among them."""
        kept = [record for record in self.records if keep(record)]
        if len(kept) == len(self.records):
            return self
        known = self.other_order
        return self._changed(
            records=kept,
            notes=[note for note in self.notes if not note.startswith("free axes")],
            other_order=None if known is None else ([*filter(keep, known[0])], known[1]),
        )

    def _changed(self, **changes: Any) -> Recorded:
        """The same with these attributes, as data alone: it runs nothing more."""
        own = {each.name: getattr(self, each.name) for each in fields(Recorded) if each.init}
        return Recorded(**{**own, "notes": list(self.notes), **changes})


def _is_plain(record: Run) -> bool:
    """Whether it is a normal draw of the example's size."""
    return record.probe.group == NORMAL and not record.probe.sizes


def _in_double(runner: Runner) -> Runner | None:
    try:
        return in_double(runner)
    except Exception:  # it cannot be copied, or not converted
        return None
