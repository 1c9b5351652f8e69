"""How much memory a file may ask for: what is free now, by the strictest of what limits this process."""

from __future__ import annotations

import os
from pathlib import Path

from reparamkit.errors import UnusableInput

_GIB = 1 << 30
_UNKNOWN = 1 << 50
_SMALL = 1 << 24
"""Below this, nothing is asked for: looking costs more than it can save."""


def free_bytes() -> int:
    """The memory that this process can still have, in bytes: the least of the machine's, the container's and
    the process's own limit; a petabyte where the system does not say."""
    return max(0, min(_of_machine(), _of_container(), _of_process()))


def check_room(wanted: int, what: str) -> None:
    """Refuse what declares more bytes than there is memory for.

    Args:
        wanted: bytes.
        what: begins the message: "x.npy declares an array of".

    Raises:
        UnusableInput: there is less.
    """
    if wanted <= _SMALL:
        return
    free = free_bytes()
    if wanted > free:
        raise UnusableInput(f"{what} {amount(wanted)}, and {amount(free)} of memory are free")


def amount(size: int) -> str:
    """A number of bytes for a message."""
    if size >= 10 * _GIB:
        return f"{size / _GIB:,.0f} GiB"
    return f"{size / (1 << 20):,.0f} MiB" if size >= 1 << 20 else f"{size / 1024:,.1f} KiB"


def _of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _of_container() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return _UNKNOWN
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        # What the container holds of files can be given up at once.
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith("inactive_file "):
                used -= int(line.split()[1])
        return int(limit) - used
    except (OSError, ValueError, IndexError):
        return _UNKNOWN


def _of_process() -> int:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return _UNKNOWN
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return int(limit) - pages * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError, IndexError):
        return _UNKNOWN
