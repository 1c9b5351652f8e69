"""Numbers that JSON lacks, in its own words."""

from __future__ import annotations

import math


def json_number(value: float | None) -> float | str | None:
    """The number, or the text "inf", "-inf" or "nan" for one that JSON lacks."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
