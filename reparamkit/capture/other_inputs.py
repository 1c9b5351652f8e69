"""Inputs that a network takes in place of those that it rejected: what people forget is tried, and named.

A batch, the order of axes, the type of the weights, whole numbers for a table, the sizes of the first layer.
Only what the network is seen to run on is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.loading.inputs_said import first_layer, required_inputs, shape_for
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.isolation import call_untouched
from reparamkit.support.quiet import quiet


@dataclass(frozen=True)
class _Try:
    """Other inputs: in words, how each tensor is changed, and which whole numbers make sense."""

    words: str
    change: Callable[[Tensor], Tensor]
    range: str = ""


def what_it_takes(model: nn.Module, args: Args, kwargs: Kwargs) -> str:
    """What to give in place of inputs that a network rejects, in words; empty where nothing likely runs."""
    for one in _tries(model, args, kwargs):
        try:
            changed = map_tensors(lambda _, tensor, one=one: one.change(tensor), args, kwargs)
            with quiet(), torch.no_grad():
                call_untouched(model, *changed)
        except Exception:
            continue
        return f"; {one.words}: {_described(args, kwargs, changed, one.range)}"
    names = required_inputs(model)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if names and (len(args) + len(kwargs) != len(names) or set(given) != set(names)):
        options = " ".join(f"--input {name}:SHAPE" for name in names)
        return f"; its forward takes ({', '.join(names)}): {options}"
    return ""


def _tries(model: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[_Try]:
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    held = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    other = held is not None and bool(dtypes - {held})

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(held) if other and tensor.is_floating_point() else tensor

    type_of = str(held).removeprefix("torch.")
    if other:
        yield _Try(f"its weights are {type_of}, so give that type", cast)
    and_type = f", in {type_of}" if other else ""
    yield _Try(f"add the batch{and_type}", lambda tensor: cast(tensor.unsqueeze(0)))
    first = first_layer(model)
    if isinstance(first, nn.Embedding):
        most = first.num_embeddings - 1
        words = f"its first layer is a table of {most + 1} rows, read by whole numbers"
        yield _Try(words, lambda tensor: tensor.long().clamp(0, most), f":0..{most}")
    if isinstance(first, nn.Linear):
        width = first.in_features
        words = f"its first layer reads {width} numbers along the last axis{and_type}"
        yield _Try(words, lambda tensor: cast(tensor.new_zeros((*tensor.shape[:-1], width))))
    elif any(tensor.ndim in (3, 4) for tensor in tensors):
        yield _Try(f"channels come before height and width{and_type}", lambda tensor: cast(_first(tensor)))
        yield _Try(f"channels come last here{and_type}", lambda tensor: cast(_last(tensor)))
        if any(tensor.ndim == 3 for tensor in tensors):
            with_batch = f"add the batch, and channels before height and width{and_type}"
            yield _Try(with_batch, lambda tensor: cast(_first(tensor).unsqueeze(0)))
    if len(tensors) == 1 and isinstance(first, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        axes, channels = len(first.kernel_size), first.in_channels
        words = f"its first layer takes {channels} channels{and_type}"
        yield _Try(words, lambda tensor: cast(_with_channels(tensor, axes, channels)))
        sizes = tuple(map(int, shape_for(first).split("x")))
        yield _Try(f"{words} and {axes} sizes behind them", lambda tensor: cast(tensor.new_zeros(sizes)))


def _with_channels(tensor: Tensor, axes: int, channels: int) -> Tensor:
    if tensor.ndim not in (axes + 1, axes + 2):
        raise ValueError("another number of axes")
    if tensor.ndim == axes + 1 and tensor.shape[1] == channels:
        return tensor.new_zeros((*tensor.shape[:2], *[tensor.shape[-1]] * axes))
    batch = tensor.shape[: -axes - 1] or (1,)
    return tensor.new_zeros((*batch, channels, *tensor.shape[-axes:]))


def _first(tensor: Tensor) -> Tensor:
    return tensor.movedim(-1, -3).contiguous() if tensor.ndim in (3, 4) else tensor


def _last(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous() if tensor.ndim in (3, 4) else tensor


def _described(args: Args, kwargs: Kwargs, changed: tuple[Any, Any], numbers: str) -> str:
    """The inputs as `--input` takes them, those that were changed and those that were not."""
    texts = []
    for (name, before), (_, after) in zip(tensor_leaves(args, kwargs), tensor_leaves(*changed), strict=True):
        dtype = "" if before.dtype is after.dtype is torch.float32 else f":{str(after.dtype)[6:]}"
        named = f"{name}:" if kwargs and not args else ""
        texts.append(f"{named}{'x'.join(map(str, after.shape))}{dtype}{numbers if dtype else ''}")
    return f"--input {' --input '.join(texts)}"
