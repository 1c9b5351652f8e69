"""Whether the order of a candidate's long sums is what it differs by, and nothing else.

A candidate whose sums of many terms go another way may be off by what the reference is off by with its own
sums added up one after the other, which can be fifty times what it is off by as it is
(`reparamkit.compare.float64.in_turn`). A mean that divides by n - 1, a variance with a correction, an epsilon
that is a tenth off or a branch of 1e-5 hides in that. So the candidate is first had without an order of its
own: in float64, or with its long sums in float64. So run it has to agree with the reference to within the
budget for one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reparamkit.compare.budgets import Budgets
from reparamkit.compare.float64.run import Run
from reparamkit.compare.float64.second_look import in_double
from reparamkit.compare.judge import judge
from reparamkit.runners.base import (
    ComputesInFloat64,
    ExactSums,
    NamedTensors,
    Runner,
    SumsExactly,
)


class _AsTyped:
    """A runner whose floating-point outputs have the types of another's."""

    def __init__(self, runner: Runner, own: Runner) -> None:
        self.name, self.structured = own.name, own.structured
        self._runner, self._own = runner, own

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        types = {name: values.dtype for name, values in self._own.run(args, kwargs)}
        return [
            (name, values.to(types[name]) if values.is_floating_point() else values)
            for name, values in self._runner.run(args, kwargs)
        ]


def of_no_order(runner: Runner) -> ExactSums | None:
    """The runner's network with its long sums taken in float64; None where it cannot be had so.

    Where it has no such sums it is what it is.
    """
    try:
        double = in_double(runner)
        if double is not None:
            return ExactSums(_AsTyped(double, runner), complete=True)
        if isinstance(runner, SumsExactly):
            return runner.with_exact_sums() or ExactSums(runner, complete=True)
        if isinstance(runner, ComputesInFloat64):
            return ExactSums(_AsTyped(runner.in_float64(), runner), complete=True)
    except Exception:  # it cannot be copied, not converted, or its file not read
        return None
    return None


def only_order_differs(
    runner: Runner, records: Sequence[Run], budgets: Budgets, settings: dict[str, Any]
) -> bool:
    """Whether a candidate that fails on these records may do so by the order of its sums alone.

    Args:
        runner: the candidate.
        records: the reference's outputs, without an order of its own.
        budgets: what it failed by.
        settings: as `reparamkit.compare.judge.judge` takes them.
    """
    free = of_no_order(runner)
    if free is None:
        return True  # nothing is known of its sums
    verdict = judge(free.runner, records, budgets, **settings)
    return not verdict.differs or not free.complete
