"""Whether the order of a candidate's long sums is what it differs by, and nothing else.

A candidate whose sums of many terms go another way may be off by what the reference is off by with its own
sums added up one after the other, which can be fifty times what it is off by as it is
(`reparamkit.compare.float64.in_turn`). A mean that divides by n - 1, a variance with a correction, an epsilon
that is a tenth off or a branch of 1e-5 hides in that. So the candidate is first had without an order of its
own: in float64, or with its long sums in float64. So run it has to agree with the reference to within the
budget for one order.

Where not all of its sums can be had so, as under OpenVINO and in ExecuTorch, the reference is had in the
orders that are usual: one term after the other, in one to sixteen lanes. Each of the candidate's outputs,
in its own precision, has to agree with one of these to within twice that budget, as both of them round. Where
one does not, it cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reparamkit.compare.budgets import Budgets
from reparamkit.compare.float64.run import Run
from reparamkit.compare.float64.second_look import SecondLook, in_double
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
    runner: Runner,
    records: Sequence[Run],
    second: SecondLook | None,
    budgets: Budgets,
    settings: dict[str, Any],
) -> bool | None:
    """Whether the order of its sums is all that a candidate that fails on these records differs by.

    Args:
        runner: the candidate.
        records: the reference's outputs.
        second: runs the reference, where that is at hand.
        budgets: what it failed by.
        settings: as `reparamkit.compare.judge.judge` takes them.

    Returns:
        None where it cannot be told: some of the candidate's sums have an order of its own, and it is not the
        reference in any of the usual orders.
    """
    free = of_no_order(runner)
    if free is not None:
        exact = records if second is None else second.without_order(records)
        if not judge(free.runner, exact, budgets, **settings).differs:
            return True
        if free.complete:
            return False
    if second is None:
        return None
    both = budgets.for_both()
    try:
        orders = list(second.in_orders())
        left = {truth.name: {*range(len(orders))} for truth in records[0].truths}
        for record in records:
            for place in sorted(set[int]().union(*left.values())):
                verdict = judge(runner, [orders[place](record)], both, **settings)
                for entry in verdict.outputs:
                    if not entry.passed:
                        left[entry.output].discard(place)
            if not all(left.values()):
                return None
    except Exception:  # the reference cannot be run so
        return None
    return True
