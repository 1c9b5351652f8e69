"""A time limit on Python code that offers none, such as the symbolic solver behind torch.export.

An exception is raised inside the working thread from outside (`PyThreadState_SetAsyncExc`). It derives from
BaseException, because solvers swallow `Exception`, and is repeated, because a destructor may swallow one.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(BaseException):
    """The block did not finish within its limit."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise `OutOfTime` in this thread once the block has run for `seconds`; None is no limit."""
    if seconds is None:
        yield
        return
    thread = ctypes.c_ulong(threading.get_ident())
    done, lock = threading.Event(), threading.Lock()

    def watch() -> None:
        if done.wait(seconds):
            return
        while True:
            with lock:
                if done.is_set():
                    return
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))
            if done.wait(1.0):
                return

    watcher = threading.Thread(target=watch, daemon=True, name="reparamkit-limit")
    watcher.start()
    try:
        yield
    finally:
        with lock:
            done.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
        watcher.join()
