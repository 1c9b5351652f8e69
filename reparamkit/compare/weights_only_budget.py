"""The second test of a float16 candidate: its weights alone, as they are stored, computed with in float64."""

from __future__ import annotations

from dataclasses import replace

from reparamkit.compare.allowance import Allowance
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.verdict import Equivalence
from reparamkit.runners.base import Runner


def judge_stored(
    allowed: Allowance, recorded: Recorded, in_float64: Runner, verdict: Equivalence
) -> Equivalence:
    """The verdict on a candidate that passed as it is, after the test of its weights.

    Args:
        allowed: what `weights_allowance` gave.
        recorded: with the records of `allowed` that are to be tried.
        in_float64: the candidate, computing in float64.
        verdict: the one that it passed with.

    Returns:
        `verdict` with a note, or the one that the weights did not pass with.

    Raises:
        UnusableInput: as `Recorded.judge`.
    """
    found = recorded.judge(in_float64, measured=True, same_dtypes=False)
    if found.passed:
        said = f"{allowed.stated}: error {found.e1:.1e}, allowed {found.budget:.1e}"
        return replace(verdict, notes=(*verdict.notes, said))
    reason = f"with its weights as stored, computed in float64, {found.reason}"
    return replace(found, reason=reason, notes=(*verdict.notes, allowed.stated))
