"""One call at a time, and nothing of what surrounds it.

torch.export keeps its state in the process and is not made for several threads: calls from other threads wait
until the one before them is done. And whatever the caller is in the middle of (inference mode, autocast, a
default device, modes that watch or replace operators) would change what a network computes, or what is made
of it; so it is put aside for as long as a call lasts, and the result is the one that the call has elsewhere.
A network that needs such a mode to run has to enter it in its own forward.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import _disable_current_modes

_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu")
_turn = threading.RLock()


def _renew() -> None:
    """After a fork: whoever held the lock is not there any more."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Wait until no other thread is inside, and shut the caller's modes out. Also a decorator."""
    with _turn, ExitStack() as stack:
        stack.enter_context(_no_function_modes())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_disable_current_modes())
        stack.enter_context(_no_cached_parametrizations())
        yield


@contextmanager
def _no_function_modes() -> Iterator[None]:
    """`with torch.device(...)`, `set_default_device`, and whatever else sees torch's functions."""
    modes: list[Any] = []
    while torch._C._len_torch_function_stack():
        modes.append(torch._C._pop_torch_function_stack())
    try:
        yield
    finally:
        for mode in reversed(modes):
            torch._C._push_on_torch_function_stack(mode)


@contextmanager
def _no_cached_parametrizations() -> Iterator[None]:
    """Within `parametrize.cached()` a capture would leave its symbolic weights in the cache."""
    enabled, cache = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = enabled, cache
