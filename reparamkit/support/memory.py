"""Give freed memory back to the system.

The C library of Linux keeps large blocks that were freed for later, because they look like ones that will be
needed again. After weights of a hundred megabytes were read, copied or converted that is as much again.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Give back what was freed; does nothing where the C library has no such call."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
