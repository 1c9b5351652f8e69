"""Tensors out of files, held to the memory that they take once they are used.

A tensor can be larger than its storage: with a stride of zero, as a sparse one, or with no storage at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.memory import check_room


def check_tensors(held: object, where: str) -> None:
    """Find out whether the tensors in nested lists, tuples and mappings can be copied.

    Args:
        held: what a file held.
        where: the file, for messages.

    Raises:
        UnusableInput: one of them has no values, or they take more memory than is free.
    """
    pending, seen, total = [held], set[int](), 0
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            total += _beyond_storage(value, where)
            check_room(total, f"{where} declares tensors of")
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value


def _beyond_storage(tensor: torch.Tensor, where: str) -> int:
    """The bytes that a copy takes and the tensor itself does not."""
    if tensor.is_meta:
        raise UnusableInput(
            f"{where} holds a tensor without values (of the meta device); save it from a network that has "
            f"its weights"
        )
    whole = tensor.numel() * tensor.element_size()
    if tensor.layout is not torch.strided or tensor.is_nested:
        return whole
    return max(0, whole - tensor.untyped_storage().nbytes())
