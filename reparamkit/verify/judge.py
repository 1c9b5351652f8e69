"""Judge one candidate by the records of a reference. Knows no back end and runs no reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from reparamkit.errors import UnusableInput
from reparamkit.verify.layout import in_words
from reparamkit.verify.measure import as_real, deviation, value_at
from reparamkit.verify.metrics import Metrics, measure
from reparamkit.verify.oracle import first_line
from reparamkit.verify.probes import NORMAL, Probe
from reparamkit.verify.record import Record, Truth, listed
from reparamkit.verify.runners import NamedTensors, Runner
from reparamkit.verify.verdict import Equivalence, OutputError, exceeds


class Budgets:
    """What each output may be off by, per group of probes: the formula of `reparamkit.verify.reference`.

    `factor` and `floor` are the 4 and the few ulp in it, `enough` the number of elements from which a
    group has a scale and a noise of its own, `resolution` the budget above which an output says nothing.
    """

    def __init__(
        self, records: Sequence[Record], factor: float, floor: float, enough: int, resolution: float
    ) -> None:
        self.floor = floor
        self.factor = factor
        self.resolution = resolution
        self._enough = enough
        self._noise: dict[tuple[int, str], float] = {}
        self._scale: dict[tuple[int, str], float] = {}
        self._finite: dict[tuple[int, str], int] = {}
        for record in records:
            for place, truth in enumerate(record.truths):
                key = (place, record.probe.group)
                self._noise[key] = max(self._noise.get(key, 0.0), truth.noise)
                self._scale[key] = max(self._scale.get(key, 0.0), truth.scale)
                self._finite[key] = self._finite.get(key, 0) + truth.finite

    def scale(self, place: int, group: str) -> float:
        """S of the output at this place, in its own units."""
        own = self._scale.get((place, group), 0.0)
        if self._finite.get((place, group), 0) < self._enough:
            return max(own, self._scale.get((place, NORMAL), 0.0))
        return own

    def noise(self, place: int, group: str) -> float:
        """E0 of the output at this place, relative to `scale`."""
        scale = self.scale(place, group)
        normal = relative(self._noise.get((place, NORMAL), 0.0), self._scale.get((place, NORMAL), 0.0))
        own = relative(self._noise.get((place, group), 0.0), scale)
        return max(own, normal if math.isfinite(normal) else 0.0)

    def budget(self, place: int, group: str) -> float:
        """What E1 may be."""
        return self.factor * self.noise(place, group) + self.floor


Rule = Callable[[Probe, Metrics], tuple[str, ...] | None]
"""The limits, in words, that an output's measures break under a probe; None where there is nothing to say."""


class _Different(Exception):
    """The candidate is different in a way that has no number."""


def judge(
    runner: Runner,
    records: Sequence[Record],
    budgets: Budgets,
    *,
    structured: bool,
    rule: Rule | None = None,
    measured: bool = False,
    same_dtypes: bool = True,
) -> Equivalence:
    """Run the candidate on every recorded probe and compare.

    Args:
        structured: the reference's output names come from a Python structure; where the candidate's do as
            well, they have to be the same.
        rule: decides in place of the budgets.
        measured: fill in the entries' `metrics`; a rule does so too.
        same_dtypes: an output of another floating-point (or integer) type is a difference.

    Raises:
        UnusableInput: the candidate takes other inputs than the reference, or nothing could be compared.
    """
    entries: list[OutputError] = []
    broken: dict[str, str] = {}
    compared = 0
    for record in records:
        try:
            found = _outputs(runner, record, structured, same_dtypes)
        except _Different as difference:
            broken[record.probe.name] = str(difference)
            continue
        for place, (truth, values) in enumerate(zip(record.truths, found, strict=True)):
            entry, evidence = _compare(record, place, truth, values, budgets, rule, measured)
            entries.append(entry)
            compared += evidence
    reasons = list(broken.values())
    constant = _constant_outputs(records, budgets)
    worst = max(entries, key=exceeds, default=None)
    if worst is not None and not worst.passed:
        reasons.append(describe(worst))
    if not reasons and not compared:
        raise UnusableInput(
            "cannot tell whether the two are the same: every output is empty, not a number, or so noisy in "
            "the reference itself that a comparison means nothing"
        )
    numberless = bool(reasons) and (worst is None or worst.passed)
    return Equivalence(
        passed=not reasons,
        e0=worst.e0 if worst else None,
        e1=math.inf if numberless or worst is None else worst.e1,
        floor=budgets.floor,
        budget=worst.budget if worst else budgets.floor,
        oracle="float64",
        outputs=tuple(entries),
        seed=0,
        notes=tuple(_notes(records, budgets, constant)),
        reason=reasons[-1] if worst is not None and not worst.passed else "".join(reasons[:1]),
        constant_outputs=tuple(constant),
        broken_probes=broken,
    )


def relative(error: float, scale: float) -> float:
    """`error / scale`, where no error on a scale of zero is 0 and any other is infinite."""
    if scale > 0:
        return error / scale
    return math.inf if error > 0 else 0.0


def describe(entry: OutputError) -> str:
    """The place of an error in words."""
    where = "[" + ", ".join(map(str, entry.index)) + "]" if entry.index else ""
    if entry.conflict:
        return (
            f"output {entry.output!r}{where} is {entry.candidate_value} in the candidate and "
            f"{entry.reference_value} in the reference, on the probe {entry.probe!r}{entry.hint}"
        )
    if entry.failures:
        limits = "; ".join(entry.failures)
        return f"output {entry.output!r} on the probe {entry.probe!r}: {limits}{entry.hint}"
    return (
        f"output {entry.output!r}{where} is {entry.candidate_value:.9g} and should be "
        f"{entry.reference_value:.9g} on the probe {entry.probe!r}: "
        f"an error of {entry.e1:.2e} of the output's scale, where {entry.budget:.2e} is allowed"
        f"{entry.hint}"
    )


def _outputs(runner: Runner, record: Record, structured: bool, same_dtypes: bool) -> list[torch.Tensor]:
    """The candidate's outputs in the reference's order."""
    probe = record.probe.name
    try:
        found = runner.run(*record.probe.inputs())
    except UnusableInput:
        raise
    except Exception as error:
        raise _Different(f"the candidate fails on the probe {probe!r}: {first_line(error)}") from error
    ordered = _matched(found, record, structured and runner.structured)
    for truth, values in zip(record.truths, ordered, strict=True):
        if not (values.dtype is truth.dtype or (not same_dtypes and _alike(values.dtype, truth.dtype))):
            raise _Different(
                f"output {truth.name!r} is {_short(values.dtype)} in the candidate and "
                f"{_short(truth.dtype)} in the reference"
            )
        shape = as_real(values).shape
        if shape != truth.values.shape:
            raise _Different(
                f"output {truth.name!r} has the shape {tuple(shape)} in the candidate and "
                f"{tuple(truth.values.shape)} in the reference, on the probe {probe!r}"
                f"{in_words(as_real(values), truth.values)}"
            )
    return ordered


def _alike(left: torch.dtype, right: torch.dtype) -> bool:
    """Whether both are floating point, or complex, or integers."""
    kinds = [(dtype.is_floating_point, dtype.is_complex, dtype is torch.bool) for dtype in (left, right)]
    return kinds[0] == kinds[1]


def _matched(found: NamedTensors, record: Record, by_structure: bool) -> list[torch.Tensor]:
    names = [truth.name for truth in record.truths]
    by_name = dict(found)
    if set(by_name) == set(names) and len(found) == len(names):
        return [by_name[name] for name in names]
    if by_structure or len(found) != len(names):
        raise _Different(
            f"the outputs are {listed([name for name, _ in found])} in the candidate and "
            f"{listed(names)} in the reference"
        )
    return [values for _, values in found]


def _compare(
    record: Record,
    place: int,
    truth: Truth,
    values: torch.Tensor,
    budgets: Budgets,
    rule: Rule | None,
    measured: bool,
) -> tuple[OutputError, int]:
    """One output under one probe, and how many of its elements are evidence."""
    values = as_real(values)
    group = record.probe.group
    found = deviation(values, truth.values, truth.undecided)
    floating = truth.values.is_floating_point()
    scale = budgets.scale(place, group) if floating else 1.0
    metrics = None
    if measured or rule is not None:
        size = (
            scale if floating else float(truth.values.double().abs().max()) if truth.values.numel() else 0.0
        )
        metrics = measure(values, truth.values, size, 2 * truth.noise)
        if found.conflict is not None:
            metrics = replace(
                metrics, max_abs=math.inf, max_rel=math.inf, rms=math.inf, psnr=-math.inf, cosine=math.nan
            )
    failures = None
    if found.conflict is not None:
        e0, e1, budget, evidence = budgets.noise(place, group), math.inf, budgets.budget(place, group), 1
    elif floating:
        e0, e1 = budgets.noise(place, group), relative(found.max_abs, scale)
        budget = budgets.budget(place, group)
        evidence = found.compared if rule is not None or budget <= budgets.resolution else 0
    else:
        e0, e1, budget = 0.0, found.differing / max(truth.values.numel(), 1), 0.0
        evidence = found.compared
    if rule is not None and metrics is not None:
        failures = rule(record.probe, metrics)
    judged = rule is None or failures is not None
    if found.conflict is not None:
        judged, failures = (
            True,
            None if rule is None else ("NaN or infinite on one side only", *(failures or ())),
        )
    entry = OutputError(
        output=truth.name,
        probe=record.probe.name,
        e0=e0,
        e1=e1,
        max_abs=found.max_abs,
        scale=scale,
        index=found.index,
        reference_value=value_at(truth.values, found.index),
        candidate_value=value_at(values, found.index),
        budget=budget,
        metrics=metrics,
        failures=failures,
        judged=judged,
    )
    if not entry.passed and floating:
        entry = replace(entry, hint=in_words(values, truth.values))
    return entry, evidence if judged else 0


def _constant_outputs(records: Sequence[Record], budgets: Budgets) -> list[str]:
    """Outputs that are the same on every probe of the example's size."""
    comparable = [record for record in records if not record.probe.sizes]
    if len(comparable) < 2:
        return [truth.name for truth in records[0].truths]
    constant = []
    for place, truth in enumerate(comparable[0].truths):
        others = [record.truths[place].values for record in comparable[1:]]
        if truth.values.numel() and all(_same(other, truth.values, budgets.floor) for other in others):
            constant.append(truth.name)
    return constant


def _same(left: torch.Tensor, right: torch.Tensor, floor: float) -> bool:
    if left.shape != right.shape:
        return False
    found = deviation(left, right)
    scale = float(right.abs().nan_to_num(0, 0, 0).max()) if right.is_floating_point() else 1.0
    return found.conflict is None and found.max_abs <= floor * scale


def _notes(records: Sequence[Record], budgets: Budgets, constant: list[str]) -> list[str]:
    notes = [
        f"output {name!r} does not depend on the input (it is the same on every probe), so it is no evidence"
        for name in constant
    ]
    for place, truth in enumerate(records[0].truths):
        truths = [record.truths[place] for record in records]
        total = sum(each.values.numel() for each in truths)
        finite = sum(each.finite for each in truths)
        if total == 0:
            notes.append(f"output {truth.name!r} is empty, so nothing of it was compared")
        elif finite < total:
            notes.append(
                f"output {truth.name!r} of the reference is NaN or infinite in {total - finite} of {total} "
                f"elements; that says little, and only that the candidate's are the same was checked"
            )
        undecided = sum(int(each.undecided.sum()) for each in truths if each.undecided is not None)
        if undecided:
            notes.append(
                f"output {truth.name!r}: {undecided} of {total} integers differ between the reference's own "
                f"run and its float64 run (ties); they were left out"
            )
        groups = {record.probe.group for record in records}
        if finite and any(budgets.budget(place, group) > budgets.resolution for group in groups):
            notes.append(
                f"output {truth.name!r}: the reference's own rounding error is so large that its values "
                f"on some probes are no evidence"
            )
    return notes


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
