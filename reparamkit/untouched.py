"""Running somebody's model without changing it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def call_untouched(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, gradients: bool = False
) -> Any:
    """`module(*args, **kwargs)` on copies of the inputs, without gradients unless they are asked for.

    A forward may write into the module's buffers (a counter, a cache); they get their values back.
    """
    with buffers_kept(module), torch.set_grad_enabled(gradients):
        return module(*_copies(args), **_copies(kwargs))


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put back what is written into buffers of the module, and which tensors its buffers are."""
    bound = [(part._buffers, dict(part._buffers)) for part in module.modules()]
    with torch.no_grad():
        kept = [
            (buffer, buffer._version, buffer.clone())
            for buffer in module.buffers()
            if not buffer.is_inference()
        ]
    try:
        yield
    finally:
        for buffers, before in bound:
            if any(buffers.get(name) is not tensor for name, tensor in before.items()):
                buffers.update(before)
        with torch.no_grad():
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
    """Give the attributes of these modules, and what their containers hold, back their values afterwards.

    A forward may count its calls, or keep its last output. Between the runs inside, it may go on doing so.
    """
    kept = _Attributes([m for m in models if isinstance(m, nn.Module)])
    try:
        yield
    finally:
        kept.give_back()


class _Attributes:
    """What modules and the plain containers in them hold, and the values of tensors that are no weights."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._held: list[tuple[_Container, _Container]] = []
        self._values: list[tuple[Tensor, int, Tensor]] = []
        weights = {id(t) for m in models for t in (*m.parameters(), *m.buffers())}
        seen: set[int] = set()
        pending: list[Any] = [*models]
        while pending:
            item = pending.pop()
            if id(item) in seen:
                continue
            seen.add(id(item))
            if isinstance(item, nn.Module):
                pending.append(vars(item))
            elif isinstance(item, dict | list | set | deque):
                self._held.append((item, dict(item) if isinstance(item, dict) else list(item)))
                pending.extend(_members(item))
            elif isinstance(item, tuple):
                pending.extend(item)
            elif isinstance(item, Tensor) and id(item) not in weights and _is_plain(item):
                self._values.append((item, item._version, item.detach().clone()))

    def give_back(self) -> None:
        """Undo what has happened since."""
        for container, before in self._held:
            now, then = _members(container), _members(before)
            if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
                container.clear()
                add = container.extend if isinstance(container, list | deque) else container.update
                add(before)
        with torch.no_grad():
            for tensor, version, value in self._values:
                if tensor._version != version:
                    tensor.copy_(value)


_Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]


def _members(container: _Container) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else [*container]


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and not tensor.is_inference() and not tensor.is_meta


def _copies(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)
