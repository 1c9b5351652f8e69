"""Judge one candidate by the records of a reference. Knows no back end and runs no reference."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from reparamkit.compare.budgets import Budgets
from reparamkit.compare.channels import RESOLUTION, worst_channel
from reparamkit.compare.dtypes import other_type
from reparamkit.compare.evidence import blind_outputs, untold
from reparamkit.compare.float64.record import listed
from reparamkit.compare.float64.run import Run, Truth
from reparamkit.compare.inputs.probes import Probe
from reparamkit.compare.layout import in_words
from reparamkit.compare.measure import as_real, deviation, value_at
from reparamkit.compare.metrics import Metrics, measure, relative
from reparamkit.compare.verdict import Equivalence, OutputError, exceeds
from reparamkit.errors import UnusableInput
from reparamkit.runners.base import NamedTensors, Runner
from reparamkit.support.progress import phase
from reparamkit.support.text import first_line

Rule = Callable[[Probe, Metrics, float], tuple[str, ...] | None]
"""The limits, in words, that an output's measures break under a probe; None where there is nothing to say.

The number says how many times larger the output is on such probes than on normal values, at least 1.
"""


class Incomparable(Exception):
    """The candidate is different in a way that has no number."""


def judge(
    runner: Runner,
    records: Sequence[Run],
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

    Returns:
        The verdict; `untold` says why it is none.

    Raises:
        UnusableInput: the candidate takes other inputs than the reference.
    """
    entries: list[OutputError] = []
    broken: dict[str, str] = {}
    told: dict[str, None] = {}
    seconds: dict[str, float] = {}
    for record in records:
        started = time.perf_counter()
        try:
            with phase("candidate", f"on {record.probe.name!r}"):
                outputs = _outputs(runner, record, structured, same_dtypes, told)
        except Incomparable as difference:
            broken[record.probe.name] = str(difference)
            continue
        finally:
            seconds[record.probe.name] = time.perf_counter() - started
        for place, (truth, values) in enumerate(zip(record.truths, outputs, strict=True)):
            entry = _compare(record, place, truth, values, budgets, rule, measured)
            if values.dtype is not truth.dtype and _both_exact(values.dtype, truth.dtype):
                differs, said = other_type(truth.name, truth.dtype, values.dtype, runner.name)
                entry = replace(entry, failures=(said, *(entry.failures or ()))) if differs else entry
            entries.append(entry)
    return replace(conclude(records, budgets, entries, broken, notes=told), seconds=seconds)


def conclude(
    records: Sequence[Run],
    budgets: Budgets,
    entries: Sequence[OutputError],
    broken: Mapping[str, str],
    *,
    set_aside: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> Equivalence:
    """The verdict that these errors amount to.

    Args:
        entries: one per output and probe on which it could be compared.
        broken: probe -> why nothing could be compared on it.
        set_aside: probe -> why it is no evidence; its errors are only reported.
        notes: what else to say.
    """
    aside = set_aside or {}
    entries = [replace(each, judged=False) if each.probe in aside else each for each in entries]
    broken = {probe: why for probe, why in broken.items() if probe not in aside}
    reasons = list(broken.values())
    constant = _constant_outputs(records, budgets)
    worst = max(entries, key=exceeds, default=None)
    if worst is not None and not worst.passed:
        reasons.append(describe(worst))
    numberless = bool(reasons) and (worst is None or worst.passed)
    blind = blind_outputs(records, entries, constant)
    cannot = "" if reasons else untold(blind, [truth.name for truth in records[0].truths])
    return Equivalence(
        passed=not reasons and not cannot,
        e0=worst.e0 if worst else None,
        e1=math.inf if numberless or worst is None else worst.e1,
        floor=budgets.floor,
        budget=worst.budget if worst else budgets.floor,
        oracle="float64",
        outputs=tuple(entries),
        seed=0,
        notes=(*notes, *_notes(records, budgets, constant), *_aside(records, aside)),
        reason=cannot or (reasons[-1] if worst is not None and not worst.passed else "".join(reasons[:1])),
        constant_outputs=tuple(constant),
        broken_probes=dict(broken),
        untold=cannot,
        blind=blind,
        set_aside=dict(aside),
    )


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
        if limits.startswith("output "):
            return f"{limits}, on the probe {entry.probe!r}"
        return f"output {entry.output!r} on the probe {entry.probe!r}: {limits}{entry.hint}"
    whose = "the output's scale"
    if entry.channel is not None:
        whose = f"the scale of channel {entry.channel[1]} along axis {entry.channel[0]} ({entry.scale:.3g})"
    return (
        f"output {entry.output!r}{where} is {entry.candidate_value:.9g} and should be "
        f"{entry.reference_value:.9g} on the probe {entry.probe!r}: "
        f"an error of {entry.e1:.2e} of {whose}, where {entry.budget:.2e} is allowed"
        f"{entry.hint}"
    )


def _outputs(
    runner: Runner, record: Run, structured: bool, same_dtypes: bool, told: dict[str, None]
) -> list[torch.Tensor]:
    """The candidate's outputs in the reference's order; other types that are no difference go into `told`."""
    probe = record.probe.name
    try:
        named = runner.run(*record.probe.inputs())
    except UnusableInput:
        raise
    except Exception as error:
        raise Incomparable(f"the candidate fails on the probe {probe!r}: {first_line(error)}") from error
    ordered = in_order(named, record, structured=structured and runner.structured)
    for truth, values in zip(record.truths, ordered, strict=True):
        if values.dtype is not truth.dtype:
            differs, said = other_type(truth.name, truth.dtype, values.dtype, runner.name)
            if same_dtypes or (differs and not _both_exact(values.dtype, truth.dtype)):
                raise Incomparable(said)
            if not differs:
                told[said] = None
        shape = as_real(values).shape
        if shape != truth.values.shape:
            raise Incomparable(
                f"output {truth.name!r} has the shape {tuple(shape)} in the candidate and "
                f"{tuple(truth.values.shape)} in the reference, on the probe {probe!r}"
                f"{in_words(as_real(values), truth.values)}"
            )
    return ordered


def _both_exact(left: torch.dtype, right: torch.dtype) -> bool:
    """Whether both are integers or booleans, so that values can be held against each other."""
    return not any(dtype.is_floating_point or dtype.is_complex for dtype in (left, right))


def in_order(named: NamedTensors, record: Run, *, structured: bool) -> list[torch.Tensor]:
    """A candidate's outputs in the reference's order.

    Raises:
        Incomparable: there are more or fewer, or with `structured` they have other names.
    """
    names = [truth.name for truth in record.truths]
    by_name = dict(named)
    if set(by_name) == set(names) and len(named) == len(names):
        return [by_name[name] for name in names]
    if structured or len(named) != len(names):
        raise Incomparable(
            f"the outputs are {listed([name for name, _ in named])} in the candidate and "
            f"{listed(names)} in the reference"
        )
    return [values for _, values in named]


def _compare(
    record: Run,
    place: int,
    truth: Truth,
    values: torch.Tensor,
    budgets: Budgets,
    rule: Rule | None,
    measured: bool,
) -> OutputError:
    """One output under one probe."""
    values = as_real(values)
    group = record.probe.group
    apart = deviation(values, truth.values, truth.undecided)
    floating = truth.values.is_floating_point()
    scale = budgets.scale(place, group) if floating else 1.0
    metrics = None
    if measured or rule is not None:
        size = (
            scale if floating else float(truth.values.double().abs().max()) if truth.values.numel() else 0.0
        )
        metrics = measure(values, truth.values, size, 2 * truth.noise)
        if apart.conflict is not None:
            metrics = replace(
                metrics, max_abs=math.inf, max_rel=math.inf, rms=math.inf, psnr=-math.inf, cosine=math.nan
            )
    failures = None
    if floating:
        e0, e1 = budgets.noise(place, group), relative(apart.max_abs, scale)
        budget = budgets.budget(place, group)
    else:
        e0, e1, budget = 0.0, apart.differing / max(truth.values.numel(), 1), 0.0
    if rule is not None and metrics is not None:
        failures = rule(record.probe, metrics, budgets.growth(place, group) if floating else 1.0)
    judged = rule is None or failures is not None
    if apart.conflict is not None:
        judged = True
        if rule is not None:
            failures = ("NaN or infinite on one side only", *(failures or ()))
    entry = OutputError(
        output=truth.name,
        probe=record.probe.name,
        e0=e0,
        e1=e1,
        max_abs=apart.max_abs,
        scale=scale,
        index=apart.index,
        reference_value=value_at(truth.values, apart.index),
        candidate_value=value_at(values, apart.index),
        budget=budget,
        metrics=metrics,
        failures=failures,
        judged=judged,
    )
    if floating and rule is None and entry.passed and budget <= RESOLUTION:
        worst = worst_channel(values, truth.values, budgets.channels(place, group))
        if worst is not None:
            entry = replace(
                entry,
                e1=relative(worst.error, worst.scale),
                max_abs=worst.error,
                scale=worst.scale,
                index=worst.index,
                reference_value=value_at(truth.values, worst.index),
                candidate_value=value_at(values, worst.index),
                budget=relative(worst.allowed, worst.scale),
                channel=(worst.axis, worst.channel),
            )
    if not entry.passed and floating:
        entry = replace(entry, hint=in_words(values, truth.values))
    return entry


def _constant_outputs(records: Sequence[Run], budgets: Budgets) -> list[str]:
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
    apart = deviation(left, right)
    scale = float(right.abs().nan_to_num(0, 0, 0).max()) if right.is_floating_point() else 1.0
    return apart.conflict is None and apart.max_abs <= floor * scale


def _notes(records: Sequence[Run], budgets: Budgets, constant: list[str]) -> list[str]:
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
        if finite and any(budgets.budget(place, group) > RESOLUTION for group in groups):
            notes.append(
                f"output {truth.name!r}: the reference's own rounding error is so large that its values "
                f"on some probes are no evidence"
            )
    return notes


def _aside(records: Sequence[Run], aside: Mapping[str, str]) -> list[str]:
    if not aside:
        return []
    named = "; ".join(f"{probe}: {why}" for probe, why in aside.items())
    return [
        f"{len(aside)} of {len(records)} probes were set aside, because what differs there is rounding that "
        f"the network itself blows up, such as a tie or a saturation ({named})"
    ]
