"""Many small operators in a row, without what slows them down."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reparamkit.support.garbage import make_old


@contextmanager
def on_one_thread() -> Iterator[None]:
    """One thread and no garbage collection.

    The tensors are tiny: a second thread only waits for the first, and on a busy machine for long. And every
    collection walks through all of the user's model and both graphs, to find next to nothing.
    """
    threads, collects = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collects:
            make_old()  # or all that is new would be looked through at once
            gc.enable()
