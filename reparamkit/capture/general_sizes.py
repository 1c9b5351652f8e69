"""Sizes inside a network as formulas without special cases.

A slice `x[3:-3]` of n rows has max(0, max(0, n - 3) - min(3, n)) of them: n - 6, unless there are fewer
than six. Here such a maximum or minimum becomes the operand that it has in the example, where that is so
for every larger size as well, and the condition goes to the guards (n ≥ 6). Equal sizes then have equal
formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch.utils._sympy.functions import FloorDiv, Max, Min


class GeneralSizes:
    """Formulas simplified for sizes like the example's and larger ones.

    Args:
        example: symbol -> its size in the example.
    """

    def __init__(self, example: Mapping[Any, int]) -> None:
        self._example = dict(example)
        self._known: dict[Any, Any] = {}
        self.nonnegative: list[Any] = []
        """Formulas that must not be negative for what was simplified."""

    def of(self, expression: Any) -> Any:
        """The formula without those maxima and minima."""
        if expression not in self._known:
            self._known[expression] = self._simplified(expression)
        return self._known[expression]

    def _simplified(self, expression: Any) -> Any:
        if not expression.free_symbols <= self._example.keys() or not expression.atoms(Max, Min):
            return expression
        operands = [self.of(operand) for operand in expression.args]
        if not isinstance(expression, (Max, Min)):
            return expression.func(*operands)
        sign = 1 if isinstance(expression, Max) else -1
        first = max(operands, key=lambda operand: sign * int(operand.subs(self._example)))
        margins = [sign * (first - other) for other in operands if other is not first]
        if not all(_grows(margin) and margin.subs(self._example) >= 0 for margin in margins):
            return expression.func(*operands)
        self.nonnegative += [m for m in margins if not m.is_number and m not in self.nonnegative]
        return first


def _grows(margin: Any) -> bool:
    """Whether a formula never falls when a size becomes larger."""
    if margin.is_number or margin.is_symbol:
        return True
    if isinstance(margin, sympy.Add):
        return all(map(_grows, margin.args))
    if isinstance(margin, FloorDiv):
        numerator, denominator = margin.args
        return bool(denominator.is_number and denominator > 0) and _grows(numerator)
    if isinstance(margin, sympy.Mul):
        number, rest = margin.as_coeff_Mul()
        return bool(number > 0) and number != 1 and _grows(rest)
    return False


def bounded_below(margin: Any) -> tuple[Any, int]:
    """A formula f and a number b, where f ≥ b says that the margin is not negative: n - 6 becomes (n, 6)."""
    number, rest = margin.as_coeff_Add()
    return rest, -int(number)
