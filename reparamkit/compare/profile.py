"""One way to judge a candidate by a recorded reference, whoever asks: `fold`, `save`, `check`, a test.

A profile says what the candidate is held to besides the numbers; the numbers are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reparamkit.compare.allowance import Allowance, allowance, criteria_rule, weights_allowance
from reparamkit.compare.criteria import Criteria
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.run import Run
from reparamkit.compare.verdict import Equivalence
from reparamkit.runners.base import Runner
from reparamkit.support.text import dtype_name


@dataclass(frozen=True)
class Profile:
    """What a candidate is held to.

    Attributes:
        exchangeable: it stands for the reference in every respect, outputs of the same types included, and in
            the same precision: a folded network, and a file that keeps its types. Without it a candidate of a
            lower precision is judged by that precision, and types that differ are told.
        criteria: limits that decide in place of the error budget.
    """

    exchangeable: bool = False
    criteria: Criteria | None = None


EXCHANGEABLE = Profile(exchangeable=True)
DEPLOYED = Profile()


def allowed_by(profile: Profile, recorded: Recorded, precision: str) -> Allowance:
    """How a candidate of this precision ("float32", "float16", "int8", …) is judged under a profile."""
    if profile.criteria is not None and profile.criteria.given:
        stated = f"limits given: {profile.criteria.stated()}, on every probe"
        return Allowance(recorded, criteria_rule(profile.criteria), stated)
    own = dtype_name(recorded.precision)
    return allowance(recorded, own if profile.exchangeable else precision)


def judge_candidate(
    recorded: Recorded,
    candidate: Runner,
    profile: Profile,
    precision: str = "",
    *,
    allowed: Allowance | None = None,
    in_float64: Callable[[], Runner] | None = None,
    keep: Callable[[Run], bool] | None = None,
) -> Equivalence:
    """The verdict on a candidate.

    Args:
        recorded: what the reference computed.
        candidate: called as the reference is.
        precision: the candidate's; it has the reference's where it is exchangeable.
        allowed: what `allowed_by` gave for these; found out here where it is not given.
        in_float64: the candidate computing in float64 from its weights as they are stored, where it can.
        keep: the probes to try; by default all.

    Raises:
        UnusableInput: the candidate takes other inputs.
    """
    allowed = allowed or allowed_by(profile, recorded, precision)

    def narrowed(all_of_them: Recorded) -> Recorded:
        return all_of_them if keep is None else all_of_them.narrowed(keep)

    verdict = narrowed(allowed.recorded).judge(
        candidate, rule=allowed.rule, measured=not profile.exchangeable, same_dtypes=profile.exchangeable
    )
    if in_float64 is None or allowed.rule is not None or profile.exchangeable or not verdict.passed:
        return verdict
    weights = weights_allowance(recorded, precision)
    if weights is None:
        return verdict
    stored = narrowed(weights.recorded).judge(in_float64(), measured=True, same_dtypes=False)
    if stored.passed:
        said = f"{weights.stated}: error {stored.e1:.1e}, allowed {stored.budget:.1e}"
        return replace(verdict, notes=(*verdict.notes, said))
    reason = f"with its weights as stored, computed in float64, {stored.reason}"
    return replace(stored, reason=reason, notes=(*verdict.notes, weights.stated))
