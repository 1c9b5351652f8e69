"""Maxima and minima of sizes that are one of their operands for every larger size."""

from __future__ import annotations

import pytest
import sympy  # type: ignore[import-untyped]
from torch.utils._sympy.functions import FloorDiv, Max, Min

from reparamkit.capture.general_sizes import GeneralSizes, bounded_below

n, m = sympy.symbols("n m", integer=True, nonnegative=True)
EXAMPLE = {n: 10, m: 7}


@pytest.mark.parametrize(
    ("expression", "simplified", "nonnegative"),
    [
        (Max(0, n - 6), n - 6, [n - 6]),
        (Max(0, Max(0, n - 3) - Min(3, n)), n - 6, [n - 3, n - 6]),
        (Min(3, n), 3, [n - 3]),
        (2 * Max(0, n - 6) + 1, 2 * (n - 6) + 1, [n - 6]),
        (Max(1, FloorDiv(n, 2)), FloorDiv(n, 2), [FloorDiv(n, 2) - 1]),
        (n + m, n + m, []),
        (FloorDiv(n, 2), FloorDiv(n, 2), []),
    ],
)
def test_a_maximum_is_the_operand_that_it_is_in_the_example(
    expression: sympy.Expr, simplified: sympy.Expr, nonnegative: list[sympy.Expr]
) -> None:
    general = GeneralSizes(EXAMPLE)
    assert sympy.simplify(general.of(expression) - simplified) == 0
    assert set(general.nonnegative) == set(nonnegative)


@pytest.mark.parametrize(
    "expression",
    [
        Max(n, m),  # the wider of two: another one, once m grows
        Min(n, m),
        Max(8, n) + Min(8, n) - Max(12, n),  # the example is below a bound: larger sizes pass it
        Max(12, n),
        Min(12, n),
        Max(0, 12 - n),
        Max(0, n - 11),
    ],
)
def test_what_another_size_decides_otherwise_stays(expression: sympy.Expr) -> None:
    """At every size that the conditions allow, the formula has the value that it had."""
    general = GeneralSizes(EXAMPLE)
    found = general.of(expression)
    for size in range(2, 30):
        for other in (2, 7, 20):
            at = {n: size, m: other}
            if all(margin.subs(at) >= 0 for margin in general.nonnegative):
                assert found.subs(at) == expression.subs(at)


def test_other_symbols_are_left_alone() -> None:
    unknown = sympy.Symbol("u0", integer=True)
    general = GeneralSizes(EXAMPLE)
    assert general.of(Max(0, unknown - 6)) == Max(0, unknown - 6)
    assert general.nonnegative == []


def test_a_margin_as_a_bound() -> None:
    assert bounded_below(n - 6) == (n, 6)
    assert bounded_below(2 * n + 1) == (2 * n, -1)
