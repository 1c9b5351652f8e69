"""The hidden folder in which an output is made, and the removal of those that killed runs left.

Such a folder holds a file that its run keeps locked; the system gives the lock up when the run ends, however
it ends. So a folder whose lock can be had belongs to no run any more, on this machine. Where locks do not
tell (another machine wrote there, or the system knows none), a folder is left alone until it is a day old.

    .reparamkit-x1y2z3w4/   .lock   net.onnx   .old-0 (what net.mlpackage was, while it is being replaced)
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX, LOCK, ASIDE = ".reparamkit-", ".lock", ".old-"

_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_A_DAY = 86_400.0
_TRIES = 20


@contextlib.contextmanager
def hidden_folder(destination: Path) -> Iterator[Path]:
    """An empty folder beside a destination, removed afterwards; what killed runs left there is removed first.

    Args:
        destination: where the output will lie, all links followed.

    Raises:
        OSError: it cannot be made.
    """
    remove_leftovers(destination.parent)
    folder, handle = _make(destination)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the hidden folders in a folder that belong to no run any more; what cannot be is left.

    A package that had stepped aside when its run was killed, and that nothing has replaced, is put back.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError, ValueError):
                    _remove_leftover(Path(entry.path))


def _make(destination: Path) -> tuple[Path, int | None]:
    """A new folder, and the handle of its lock, which is held; None where the system has no locks."""
    for _ in range(_TRIES):
        # Short, so that a name that is valid for the file is not too long for the folder.
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=destination.parent))
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        if not _lock(handle, wait=True):
            os.close(handle)
            return folder, None
        if _is(handle, folder / LOCK):
            try:
                os.write(handle, json.dumps({"machine": _machine(), "name": destination.name}).encode())
            except BaseException:  # the disk is full, say
                os.close(handle)
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return folder, handle
        # Another run took the lock in the moment before this one had it, and the folder for a leftover.
        os.close(handle)
    raise OSError("no hidden folder can be made")


def _remove_leftover(folder: Path) -> None:
    status = folder.lstat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return
    old = time.time() - _newest(folder) > _A_DAY
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        if old:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or not _lock(handle, wait=False):
            return
        if not _is(handle, folder / LOCK):
            return
        said = os.read(handle, 1 << 16)
        facts = json.loads(said) if said else {}
        if facts.get("machine") != _machine() and not old:
            return
        _put_back(folder, str(facts.get("name", "")))
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _put_back(folder: Path, name: str) -> None:
    """Move a package that stepped aside back, if its run was killed before the new one took its place."""
    if not name or name in (".", "..") or Path(name).name != name:
        return
    target = folder.parent / name
    asides = sorted(folder.glob(f"{ASIDE}*"))
    if asides and not os.path.lexists(target):
        os.replace(asides[-1], target)


def _newest(folder: Path) -> float:
    times = [folder.lstat().st_mtime]
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                times.append((Path(root) / name).lstat().st_mtime)
    return max(times)


def _machine() -> str:
    return platform.node()


def _is(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _lock(handle: int, *, wait: bool) -> bool:
    """Take the lock; whether it could be had. It is given up with the handle, or with the process."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
