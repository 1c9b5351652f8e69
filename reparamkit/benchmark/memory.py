"""What a call adds to the memory of the process at its peak, as Linux counts it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from reparamkit.support.memory import give_back

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_ONLY = "5"  # what the kernel resets: the highest resident size (proc(5))


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
