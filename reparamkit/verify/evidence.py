"""Outputs that cannot tell two networks apart, whatever the numbers say.

An output is no evidence when it is empty or not a number on every probe, when no probe changes it, when it
is saturated (every element at 0 or 1, or -1 or 1, on every probe, as a softmax or sigmoid far from its middle
is), or when the reference's own rounding error is so large that any candidate would pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reparamkit.verify.record import Record
from reparamkit.verify.verdict import Equivalence

_RAIL = 1e-6


def blind_outputs(records: Sequence[Record], verdict: Equivalence, resolution: float) -> dict[str, str]:
    """Output -> why it is no evidence, for those that are none.

    Args:
        records: the reference on each probe.
        verdict: that of the candidate, whose `constant_outputs` and budgets count.
        resolution: the budget above which an output says nothing.
    """
    found: dict[str, str] = {}
    for place, truth in enumerate(records[0].truths):
        values = [record.truths[place].values for record in records]
        entries = [entry for entry in verdict.outputs if entry.output == truth.name and entry.judged]
        if not any(each.numel() for each in values):
            found[truth.name] = "is empty on every probe"
        elif not any(record.truths[place].finite for record in records):
            found[truth.name] = "is NaN or infinite everywhere, on every probe"
        elif truth.name in verdict.constant_outputs:
            found[truth.name] = "does not depend on the input: no probe changes it"
        elif _saturated(values):
            found[truth.name] = "is saturated: every element is at one of its ends (0 or 1, -1 or 1)"
        elif entries and all(entry.failures is None and entry.budget > resolution for entry in entries):
            least = min(entry.budget for entry in entries)
            found[truth.name] = (
                f"is so noisy that nothing can be seen: an error of {least:.0%} of its scale would pass"
            )
        elif not entries:
            found[truth.name] = "is not judged by any of the limits given"
    return found


def _saturated(values: Sequence[torch.Tensor]) -> bool:
    if not any(each.numel() for each in values) or not all(each.is_floating_point() for each in values):
        return False
    joined = torch.cat([each[each.isfinite()].flatten() for each in values])
    for low in (0.0, -1.0):
        if bool((((joined - low).abs() <= _RAIL) | ((joined - 1.0).abs() <= _RAIL)).all()):
            return True
    return False
