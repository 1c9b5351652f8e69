"""Give freed memory back to the system, and count what a call takes.

The C library of Linux keeps large blocks that were freed for later, because they look like ones that will be
needed again. After weights of a hundred megabytes were read, copied or converted that is as much again.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_ONLY = "5"  # what the kernel resets: the highest resident size (proc(5))


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


def peak_added(call: Callable[[], object]) -> int | None:
    """Bytes that are resident at the peak of a call and were not before; None where nobody counts them.

    What the C library has kept from earlier calls is given back first. What a runtime keeps for itself is
    not, so the first call says most.
    """
    gc.collect()
    give_back()
    try:
        before = _resident("VmRSS")
        _RESET.write_text(_PEAK_ONLY)
    except OSError:
        call()
        return None
    call()
    return max(_resident("VmHWM") - before, 0)


def _resident(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")
