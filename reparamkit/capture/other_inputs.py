"""Inputs that a network takes in place of those that it rejected: what people forget is tried, and named.

A batch, the order of axes, the type of the weights. Only what the network is seen to run on is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.isolation import call_untouched
from reparamkit.support.quiet import quiet

_Change = Callable[[Tensor], Tensor]


def what_it_takes(model: nn.Module, args: Args, kwargs: Kwargs) -> str:
    """What to give in place of inputs that a network rejects, in words; empty where nothing likely runs."""
    for words, change in _changes(model, args, kwargs):
        try:
            changed = map_tensors(lambda _, tensor, change=change: change(tensor), args, kwargs)
            with quiet(), torch.no_grad():
                call_untouched(model, *changed)
        except Exception:
            continue
        return f"; {words}: {_described(args, kwargs, changed)}"
    return ""


def _changes(model: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[tuple[str, _Change]]:
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    held = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    other = held is not None and bool(dtypes - {held})

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(held) if other and tensor.is_floating_point() else tensor

    type_of = str(held).removeprefix("torch.")
    if other:
        yield f"its weights are {type_of}, so give that type", cast
    and_type = f", in {type_of}" if other else ""
    yield f"add the batch{and_type}", lambda tensor: cast(tensor.unsqueeze(0))
    images = [tensor for tensor in tensors if tensor.ndim in (3, 4)]
    if not images:
        return
    yield f"channels come before height and width{and_type}", lambda tensor: cast(_first(tensor))
    yield f"channels come last here{and_type}", lambda tensor: cast(_last(tensor))
    if any(tensor.ndim == 3 for tensor in images):
        with_batch = f"add the batch, and channels before height and width{and_type}"
        yield with_batch, lambda tensor: cast(_first(tensor).unsqueeze(0))


def _first(tensor: Tensor) -> Tensor:
    return tensor.movedim(-1, -3).contiguous() if tensor.ndim in (3, 4) else tensor


def _last(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous() if tensor.ndim in (3, 4) else tensor


def _described(args: Args, kwargs: Kwargs, changed: tuple[Any, Any]) -> str:
    """The inputs as `--input` takes them, those that were changed and those that were not."""
    texts = []
    for (name, before), (_, after) in zip(tensor_leaves(args, kwargs), tensor_leaves(*changed), strict=True):
        dtype = "" if before.dtype is after.dtype is torch.float32 else f":{str(after.dtype)[6:]}"
        named = f"{name}:" if kwargs and not args else ""
        texts.append(f"{named}{'x'.join(map(str, after.shape))}{dtype}")
    return f"--input {' --input '.join(texts)}"
