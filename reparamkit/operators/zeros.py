"""Zeros: what they are added to stays as it is.

y + 0 = y

Zero times a value is none of them: infinity by zero is no number.
"""

from __future__ import annotations

from reparamkit.operators.base import Call, Meaning, NotAffine, Value, Zero, reader

FILLED = ("aten.full_like.default", "aten.new_full.default", "aten.full.default")
ZEROS = ("aten.zeros_like.default", "aten.new_zeros.default", "aten.zeros.default")


@reader(*FILLED, *ZEROS)
def zeros(call: Call) -> Meaning:
    """Of the shape of a value, or of sizes of one."""
    fill = call.get("fill_value", 0)
    if not isinstance(fill, int | float) or fill != 0:
        raise NotAffine("it is a constant", notable=False)
    like = call.get("self")
    return Zero((like,) if isinstance(like, Value) else ())
