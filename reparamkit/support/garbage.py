"""Keep the collector of garbage from walking through what is old: a model, its graphs, all of torch.

Objects that are frozen and unfrozen count as old without having been looked at. Where somebody else has
frozen theirs, nothing is done: `gc.unfreeze` knows no part.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_frozen = {"by us": False, "by others": False}


def make_old() -> None:
    """Let the next collections look at what is made from now on."""
    if not _is_frozen():
        gc.freeze()
        gc.unfreeze()


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Inside, no collection looks at what was there before."""
    if _is_frozen():
        yield
        return
    gc.freeze()
    _frozen["by us"] = True
    try:
        yield
    finally:
        _frozen["by us"] = False
        gc.unfreeze()


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Many small operators in a row: on one thread, and without garbage collection.

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


def _is_frozen() -> bool:
    """Whether anything is. Python counts it one by one, so whoever has frozen anything is asked once."""
    if not any(_frozen.values()):
        _frozen["by others"] = gc.get_freeze_count() > 0
    return any(_frozen.values())
