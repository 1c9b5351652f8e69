"""Outputs that cannot tell two networks apart, whatever the numbers say.

An output is no evidence when it is empty or not a number on every probe, when no probe changes it, when it
is saturated (every element at 0 or 1, or -1 or 1, on every probe, as a softmax or sigmoid far from its middle
is), or when the reference's own rounding error is so large that any candidate would pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from reparamkit.compare.channels import RESOLUTION
from reparamkit.compare.float64.run import Run, Truth
from reparamkit.compare.verdict import OutputError

_RAIL = 1e-6
_HINDRANCES = ("NaN", "noisy", "judged", "a tie everywhere")


def blind_outputs(
    records: Sequence[Run], judged: Sequence[OutputError], constant: Collection[str]
) -> dict[str, str]:
    """Output -> why it is no evidence, for those that are none.

    Args:
        records: the reference on each probe.
        judged: the candidate's errors.
        constant: the outputs that no probe changes.
    """
    blind: dict[str, str] = {}
    for place, truth in enumerate(records[0].truths):
        values = [record.truths[place].values for record in records]
        entries = [entry for entry in judged if entry.output == truth.name and entry.judged]
        if not any(each.numel() for each in values):
            blind[truth.name] = "is empty on every probe"
        elif not any(record.truths[place].finite for record in records):
            blind[truth.name] = "is NaN or infinite everywhere, on every probe"
        elif _all_tied([record.truths[place] for record in records]):
            blind[truth.name] = "is a tie everywhere: rounding decides every element"
        elif truth.name in constant:
            blind[truth.name] = "does not depend on the input: no probe changes it"
        elif _saturated(values):
            blind[truth.name] = "is saturated: every element is at one of its ends (0 or 1, -1 or 1)"
        elif entries and all(entry.failures is None and entry.budget > RESOLUTION for entry in entries):
            least = min(entry.budget for entry in entries)
            blind[truth.name] = (
                f"is so noisy that nothing can be seen: an error of {least:.0%} of its scale would pass"
            )
        elif not entries:
            blind[truth.name] = "is not judged by any of the limits given"
    return blind


def untold(blind: Mapping[str, str], names: Sequence[str]) -> str:
    """Why nothing that was compared tells the two apart, from `blind_outputs`; empty where something does.

    An output that does not depend on the input, is empty or is saturated is no hindrance where there are
    others. One that is not a number, drowns in noise or is not judged might be wrong unseen.
    """
    said = "; ".join(f"output {name!r} {why}" for name, why in blind.items())
    if not names:
        return "the reference has no outputs"
    if len(blind) == len(names):
        return f"nothing was compared that could differ: {said}"
    unknown = {name: why for name, why in blind.items() if any(word in why for word in _HINDRANCES)}
    return "; ".join(f"output {name!r} {why}" for name, why in unknown.items())


def _all_tied(truths: Sequence[Truth]) -> bool:
    with_elements = [truth for truth in truths if truth.values.numel()]
    return bool(with_elements) and all(
        truth.undecided is not None and bool(truth.undecided.all()) for truth in with_elements
    )


def _saturated(values: Sequence[torch.Tensor]) -> bool:
    if not any(each.numel() for each in values) or not all(each.is_floating_point() for each in values):
        return False
    joined = torch.cat([each[each.isfinite()].flatten() for each in values])
    for low in (0.0, -1.0):
        if bool((((joined - low).abs() <= _RAIL) | ((joined - 1.0).abs() <= _RAIL)).all()):
            return True
    return False
