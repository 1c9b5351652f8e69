"""How a candidate in a lower precision than the reference's is judged.

float16 and bfloat16. With y64 and S as in `reparamkit.compare.float64.reference`, and y_p the reference run
with weights, inputs and the result of every operator rounded to that precision
(`reparamkit.compare.float64.rounding`),

    E_p = max |y_p − y64| / S        E1 ≤ 4 · max(E0, E_p) + 2 eps_p

(the floor is lower than a reference's own 8 ulp, because E_p is hardly ever small by luck).

A candidate that can also be evaluated in float64 from its weights as they are stored, as Core ML programs
can, has to pass a second, narrower test, of the weights alone. With y_w the reference run with rounded
weights, in its own arithmetic,

    E_w = max |y_w − y64| / S        E1 ≤ 4 · max(E0, E_w) + eps_p

Where the reference cannot be run so (it is no PyTorch module, or was saved), or computes something else then
(its numbers leave that precision's range), rounding errors are taken to grow through the network in
proportion to eps, so that E_p = E0 · eps_p / eps. Probes on which the reference
itself would leave the range of that precision are left out, the caller's own values excepted. Integers that
change in the rounded run are ties, and left out.

int8 and whatever else is quantised. What a quantised network does depends on the data that it was calibrated
with, which nobody knows here, so it is judged on the caller's own values, and on normal ones if there are no
others, and by its mean error:

    PSNR ≥ 25 dB  and  cosine ≥ 0.97, on each such probe

Uniform quantisation of [−S, S] to 8 bits has a step of 2S/255 and an rms error of a step / sqrt(12), which
is 0.0023 S or 53 dB. Weights and activations of 50 layers whose errors add up like noise bring it to 33 dB;
25 dB leaves 8 dB for clipping. At 25 dB an output whose largest value is four times its rms has a cosine of
0.976. These are wide: they find a network that is broken, not one that lost a percent of its accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from reparamkit.compare.channels import RESOLUTION
from reparamkit.compare.criteria import Criteria
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.rounding import RoundedTwin
from reparamkit.compare.float64.run import Run
from reparamkit.compare.inputs.probes import GIVEN, NORMAL, Probe
from reparamkit.compare.judge import Rule
from reparamkit.compare.measure import as_real
from reparamkit.compare.metrics import Metrics
from reparamkit.compare.noise import noise_between
from reparamkit.runners.base import named_outputs
from reparamkit.support.text import dtype_name, first_line

FLOOR_ULPS = 2.0
FLOOR_ULPS_WEIGHTS = 1.0
QUANTISED = Criteria(psnr=25.0, cosine=0.97)

_LOWER = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Allowance:
    """How a candidate is to be judged: by which records, which rule (None is the budget), in words."""

    recorded: Recorded
    rule: Rule | None
    stated: str
    notes: tuple[str, ...] = ()


def allowance(recorded: Recorded, precision: str) -> Allowance:
    """The error budget for a candidate of this precision ("float32", "float16", "int8", …)."""
    own = dtype_name(recorded.precision)
    if precision == "int8":
        rule, words = _quantised_rule(recorded)
        stated = f"candidate is int8 (quantised): {QUANTISED.stated()}, on {words}"
        return Allowance(recorded, rule, stated)
    lower = _LOWER.get(precision)
    if lower is None or torch.finfo(lower).eps <= torch.finfo(recorded.precision).eps:
        floor = recorded.budgets().floor
        formula = f"four times the reference's own rounding error plus a floor of {floor:.1e}, in {own}"
        return Allowance(recorded, None, f"error budget: {formula}")
    records, how, left_out = _at_precision(recorded, lower, results=True)
    judged = recorded.with_records(records, lower, FLOOR_ULPS)
    floor = FLOOR_ULPS * torch.finfo(lower).eps
    stated = f"candidate is {precision}: floor {floor:.1e}, plus four times {how}"
    notes = tuple(
        f"the probe {name!r} was left out: the reference itself leaves the range of {precision} there"
        for name in left_out
    )
    return Allowance(judged, None, stated, notes)


def weights_allowance(recorded: Recorded, precision: str) -> Allowance | None:
    """The budget for the weights of a float16 or bfloat16 candidate that computes in float64.

    None for any other precision, and where the reference is as imprecise itself.
    """
    lower = _LOWER.get(precision)
    if lower is None or torch.finfo(lower).eps <= torch.finfo(recorded.precision).eps:
        return None
    records, how, _ = _at_precision(recorded, lower, results=False)
    floor = FLOOR_ULPS_WEIGHTS * torch.finfo(lower).eps
    stated = f"its weights as stored, in float64: floor {floor:.1e}, plus four times {how}"
    return Allowance(recorded.with_records(records, lower, FLOOR_ULPS_WEIGHTS), None, stated)


def criteria_rule(criteria: Criteria) -> Rule:
    """The user's limits as a rule: on every probe, for every output that they say something about."""

    def rule(probe: Probe, metrics: Metrics, growth: float) -> tuple[str, ...] | None:
        return criteria.broken(metrics, growth) if criteria.applies(metrics) else None

    return rule


def _quantised_rule(recorded: Recorded) -> tuple[Rule, str]:
    own = [record.probe for record in recorded.records if record.probe.fixed]
    groups = GIVEN if own else GIVEN | {NORMAL}

    def rule(probe: Probe, metrics: Metrics, growth: float) -> tuple[str, ...] | None:
        return QUANTISED.broken(metrics) if probe.group in groups and not probe.sizes else None

    return rule, "the given inputs" if own else "the example and normal values"


def _at_precision(
    recorded: Recorded, dtype: torch.dtype, *, results: bool
) -> tuple[list[Run], str, list[str]]:
    """Records whose noise is that of this precision, how it was found, and the probes that overflow in it.

    Without `results` only weights are rounded.
    """
    name = dtype_name(dtype)
    ratio = torch.finfo(dtype).eps / torch.finfo(recorded.precision).eps
    scaled = f"the reference's own rounding error, scaled by {ratio:.0f} from its precision to {name}"
    how = scaled
    module = recorded.module if isinstance(recorded, Reference) else None
    if module is not None:
        try:
            twin = RoundedTwin(module, dtype)
            rounded_runs = [_rounded_record(twin, record, results=results) for record in recorded.records]
        except Exception as error:
            how = f"{scaled} (it cannot be run rounded: {first_line(error)})"
        else:
            what = "weights and activations" if results else "weights"
            how = f"the error of the reference with {what} rounded to {name}"
            pairs = list(zip(recorded.records, rounded_runs, strict=True))
            left_out = [old.probe.name for old, new in pairs if new is None and old.probe.group not in GIVEN]
            kept = [new or old for old, new in pairs if old.probe.name not in left_out]
            if _says_something(recorded.with_records(kept, dtype, FLOOR_ULPS)):
                return kept, how, left_out
            how = f"{scaled} (rounded throughout to {name}, it computes something else)"
    limit = torch.finfo(dtype).max
    left_out = [
        record.probe.name
        for record in recorded.records
        if record.probe.group not in GIVEN and any(truth.scale > limit for truth in record.truths)
    ]
    kept = [
        replace(
            record, truths=tuple(truth.with_noise(truth.rounding.times(ratio)) for truth in record.truths)
        )
        for record in recorded.records
        if record.probe.name not in left_out
    ]
    return kept, how, left_out


def _says_something(recorded: Recorded) -> bool:
    """Whether a budget is small enough for its output to be evidence, on any probe."""
    budgets = recorded.budgets()
    groups = {record.probe.group for record in recorded.records}
    places = range(len(recorded.output_names))
    return any(budgets.budget(place, group) <= RESOLUTION for place in places for group in groups)


def _rounded_record(twin: RoundedTwin, record: Run, *, results: bool) -> Run | None:
    """The record with the noise of the rounded run; None where a finite output stops being finite in it."""
    outputs = named_outputs(twin.run(*record.probe.inputs(), results=results))
    if [tuple(as_real(tensor).shape) for _, tensor in outputs] != [
        tuple(truth.values.shape) for truth in record.truths
    ]:
        raise ValueError("its outputs have other shapes there")
    truths = []
    for (_, tensor), truth in zip(outputs, record.truths, strict=True):
        values = as_real(tensor)
        if not truth.values.is_floating_point():
            differs = values != truth.values
            undecided = differs if truth.undecided is None else differs | truth.undecided
            truths.append(replace(truth, undecided=undecided if bool(undecided.any()) else None))
            continue
        finite = truth.values.isfinite()
        if not bool(values[finite].isfinite().all()):
            return None
        truths.append(truth.with_noise(truth.rounding.joined(noise_between(values, truth.values))))
    return replace(record, truths=tuple(truths))
