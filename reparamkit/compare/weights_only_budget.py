"""The second test of a float16 candidate: its weights alone, as they are stored, computed with in float64."""

from __future__ import annotations

from dataclasses import replace

from reparamkit.compare.allowance import Allowance, weights_allowance
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.verdict import Equivalence
from reparamkit.runners.base import ComputesInFloat64, Runner


def stored_budget(recorded: Recorded, candidate: object, precision: str) -> Allowance | None:
    """The budget of `weights_allowance`; None as there, and where the candidate cannot compute in float64."""
    return weights_allowance(recorded, precision) if isinstance(candidate, ComputesInFloat64) else None


def judge_stored(
    allowed: Allowance, recorded: Recorded, in_float64: Runner, verdict: Equivalence
) -> Equivalence:
    """The verdict on a candidate that passed as it is, after the test of its weights.

    Args:
        allowed: what `stored_budget` gave.
        recorded: with the records of `allowed` that are to be tried.
        in_float64: the candidate, computing in float64.
        verdict: the one that it passed with.

    Returns:
        `verdict` with a note, or the one that the weights did not pass with.

    Raises:
        UnusableInput: as `Recorded.judge`.
    """
    stored = recorded.judge(in_float64, measured=True, same_dtypes=False)
    if stored.passed:
        said = f"{allowed.stated}: error {stored.e1:.1e}, allowed {stored.budget:.1e}"
        return replace(verdict, notes=(*verdict.notes, said))
    reason = f"with its weights as stored, computed in float64, {stored.reason}"
    return replace(stored, reason=reason, notes=(*verdict.notes, allowed.stated))
