"""Products of two values, linear in each: a constant factor of the product is one of either operand.

s · (a b) = (s a) b
"""

from __future__ import annotations

OPERANDS = {"aten.matmul.default": ("self", "other"), "aten.bmm.default": ("self", "mat2")}
"""Operator -> the names of its two operands."""
