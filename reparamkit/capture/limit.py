"""A time limit on Python code that offers none, such as the symbolic solver behind torch.export.

An exception is raised inside the working thread from outside (`PyThreadState_SetAsyncExc`). It derives from
BaseException, because solvers swallow `Exception`, and is repeated, because a destructor may swallow one. It
waits until no module is being imported.

What counts is the processor time of the thread: what is captured must not depend on what else the machine
does. A block that waits rather than works is ended after ten times as long.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WAITING = 10


class OutOfTime(BaseException):
    """The block did not finish within its limit."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise `OutOfTime` in this thread once it has worked on the block for `seconds`; None is no limit."""
    if seconds is None:
        yield
        return
    thread = threading.get_ident()
    finished, lock, sent = threading.Event(), threading.Lock(), 0
    worked, latest = _clock_of(thread), time.monotonic() + _WAITING * seconds
    end = worked() + seconds

    def watch() -> None:
        nonlocal sent
        pause = seconds
        while not finished.wait(pause):
            if worked() < end and time.monotonic() < latest:
                pause = max(end - worked(), 0.01)
                continue
            with lock:
                if finished.is_set():
                    return
                if _imports(thread):
                    pause = 0.05
                    continue
                sent += 1
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(OutOfTime)
                )
            pause = 1.0

    watcher = threading.Thread(target=watch, daemon=True, name="reparamkit-limit")
    watcher.start()
    caught = 0
    try:
        yield
    except OutOfTime:
        caught = 1
        raise
    finally:
        with lock:
            finished.set()
        if sent > caught:
            _absorb()
        watcher.join()


def _clock_of(thread: int) -> Callable[[], float]:
    """The seconds that a thread has worked; of the clock on the wall where Python cannot tell."""
    if sys.platform == "linux":
        clock = time.pthread_getcpuclockid(thread)
        return lambda: time.clock_gettime(clock)
    return time.monotonic


def _imports(thread: int) -> bool:
    """Whether a thread is importing a module: cut off there, a package is broken for the whole process."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _absorb() -> None:
    """Take an exception that was sent but may not have arrived yet.

    Clearing it (SetAsyncExc with NULL) leaves CPython 3.11's eval breaker set for good, which slows
    down all that follows.
    """
    try:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
    except OutOfTime:
        pass
