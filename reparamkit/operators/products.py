"""Products of two values, linear in each: a constant factor of the product is one of either operand.

s · (a b) = (s a) b
"""

from __future__ import annotations

from collections.abc import Mapping

OPERANDS = {
    "aten.matmul.default": (0, 1),
    "aten.mm.default": (0, 1),
    "aten.bmm.default": (0, 1),
    "aten.baddbmm.default": (1, 2),
    "aten.einsum.default": (1, 2),
}
"""Operator -> the places of its two operands among its arguments, those of a list one by one."""


def adds(operator: str, options: Mapping[str, object]) -> bool:
    """Whether something is added to the product, which a factor of the sum is one of, too."""
    return operator == "aten.baddbmm.default" and options.get("beta", 1) != 0
