"""Running somebody's model without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reparamkit.held_state import HeldState


def call_untouched(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module(*args, **kwargs)` without gradients, on copies of the inputs.

    A forward may write into the module's buffers (a counter, a cache); they get their values back.
    """
    with torch.no_grad():
        kept = [
            (buffer, buffer._version, buffer.clone())
            for buffer in module.buffers()
            if not buffer.is_inference()
        ]
        try:
            return module(*_copies(args), **_copies(kwargs))
        finally:
            for buffer, version, value in kept:
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put torch's random state back afterwards, on every device in use. Also a decorator."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(list(devices)):
        yield


@contextmanager
def attributes_kept(*models: object) -> Iterator[None]:
    """Give what these modules hold beside their weights its values back afterwards (`HeldState`).

    A forward may count its calls, or keep its last output. Between the runs inside, it may go on doing so.
    """
    held = HeldState(m for m in models if isinstance(m, nn.Module))
    try:
        yield
    finally:
        held.give_back()


def _copies(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)
