"""Running somebody's model without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reparamkit.support.held_state import HeldState


def call_untouched(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module(*args, **kwargs)` without gradients, on copies of the inputs."""
    with weights_kept(module), torch.no_grad():
        return module(*_copies(args), **_copies(kwargs))


@contextmanager
def weights_kept(module: nn.Module) -> Iterator[None]:
    """For one call of a module: its buffers and weights get their values back, and are the tensors they were.

    A forward may write into buffers (a counter, a cache), or change its weights. Weights are copied until a
    run has left them alone.
    """
    weights = [weight for weight in module.parameters() if _is_kept(weight)]
    held = [buffer for buffer in module.buffers() if _is_kept(buffer)]
    held += weights if module not in _harmless else []
    with torch.no_grad():
        kept = [(tensor, tensor._version, tensor.clone()) for tensor in held]
        data = [(weight, weight.detach()) for weight in weights]
    tables = [(table, dict(table)) for table in buffer_tables(module)]
    try:
        yield
    finally:
        harmless = True
        for table, before in tables:  # `self.mean = self.mean * 0.9` puts another buffer there
            if table.keys() != before.keys() or any(table[name] is not before[name] for name in table):
                table.clear()
                table.update(before)
        with torch.no_grad():
            for weight, values in data:
                if weight.data_ptr() != values.data_ptr() or weight.shape != values.shape:
                    weight.data, harmless = values, False
            for tensor, version, value in kept:
                # What is written through `.data` is not counted as a new version.
                if tensor._version != version or not torch.equal(tensor, value):
                    tensor.copy_(value)
                    harmless = harmless and not isinstance(tensor, nn.Parameter)
        if harmless:
            _harmless.add(module)


_harmless: WeakSet[nn.Module] = WeakSet()
"""Modules that have run and left their weights alone."""


def buffer_tables(module: nn.Module) -> list[dict[str, Tensor | None]]:
    """The dicts in which its modules hold their buffers; TorchScript has none."""
    if not isinstance(module, nn.Module):
        return []
    tables = (vars(part).get("_buffers") for part in module.modules())
    return [table for table in tables if isinstance(table, dict) and table]


def _is_kept(tensor: Tensor) -> bool:
    return not tensor.is_inference() and tensor.layout is torch.strided


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
