"""The one way in which example inputs are taken, and the names of the tensors inside them.

A model's inputs are given as a tensor (its only argument), a tuple or list (positional arguments) or a
dict (keyword arguments). Inside the package they are always a pair `(args, kwargs)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from reparamkit.errors import UnusableInput

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def normalise_inputs(inputs: object) -> tuple[Args, Kwargs]:
    """Turn example inputs, as a user gives them, into `(args, kwargs)`.

    A tensor becomes the only positional argument, a tuple or list the positional arguments, a mapping
    with string keys the keyword arguments. Nothing is copied. Dataclasses among them are registered with
    torch's pytrees, so that the tensors inside are seen.

    Raises:
        UnusableInput: for anything else, `None` included.
    """
    register_dataclasses(inputs)
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        for key in inputs:
            if not isinstance(key, str):
                raise UnusableInput(
                    f"example inputs given as a dict are keyword arguments, but {key!r} is not a string"
                )
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    given = "nothing" if inputs is None else f"a {type(inputs).__name__}"
    raise UnusableInput(
        f"example inputs are needed: a tensor, a tuple of positional arguments, or a dict of keyword "
        f"arguments as the model's forward takes them; got {given}"
    )


def register_dataclasses(tree: Any) -> bool:
    """Tell torch.export about the dataclasses in a tree of values; False if there were none to tell of."""
    told = False
    pending = pytree.tree_leaves(tree)
    while pending:
        leaf = pending.pop()
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            kind = type(leaf)
            name = f"{kind.__module__}.{kind.__qualname__}"
            if kind not in pytree.SUPPORTED_NODES:
                torch.export.register_dataclass(kind, serialized_type_name=name)
            told = True
            pending += pytree.tree_leaves(leaf)
    return told


def shapes_tree(shapes: Any) -> Any:
    """`dynamic_shapes` in the form of the inputs, as torch.export wants them: dataclasses as lists."""
    if dataclasses.is_dataclass(shapes) and type(shapes) in pytree.SUPPORTED_NODES:
        values = (getattr(shapes, each.name) for each in dataclasses.fields(shapes))
        return [shapes_tree(value) for value in values if value is not None]
    if type(shapes) in (list, tuple):
        return type(shapes)(map(shapes_tree, shapes))
    if type(shapes) is dict:
        return {name: shapes_tree(value) for name, value in shapes.items()}
    return shapes


def tensor_leaves(args: Args, kwargs: Kwargs) -> list[tuple[str, torch.Tensor]]:
    """Every tensor in the arguments, in call order, with a name.

    The order is that of `torch.export`'s user inputs. A positional argument is called by its index ("0"),
    a keyword argument by its keyword, a nested one by its path ("pixels.1").
    """
    leaves: list[tuple[str, torch.Tensor]] = []
    for tree in (args, kwargs):
        for path, leaf in pytree.tree_leaves_with_path(tree):
            if isinstance(leaf, torch.Tensor):
                leaves.append((".".join(_step(key) for key in path), leaf))
    return leaves


def map_tensors(function: Any, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Apply `function(index, tensor)` to every tensor, with the index that `tensor_leaves` gives it."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    index = 0
    mapped = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            leaf = function(index, leaf)
            index += 1
        mapped.append(leaf)
    new_args, new_kwargs = pytree.tree_unflatten(mapped, spec)
    return new_args, new_kwargs


def told_apart(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """The same inputs, every place a tensor object of its own (the memory is shared).

    torch.export tells inputs, parameters and buffers apart by the object: one that is given twice, or is a
    weight of the network as well, would be one value of the graph, whatever is given later.
    """

    def own(_: int, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().requires_grad_(tensor.requires_grad)

    return map_tensors(own, args, kwargs)


def resized(args: Args, kwargs: Kwargs, sizes: Mapping[tuple[int, int], int]) -> tuple[Args, Kwargs]:
    """Inputs with other sizes, flat tensor index and axis -> size, their entries repeated or left out."""

    def with_sizes(index: int, tensor: torch.Tensor) -> torch.Tensor:
        contiguous = tensor.is_contiguous()
        for (place, axis), size in sizes.items():
            if place == index:
                times = -(-size // tensor.shape[axis])
                if times > 1:
                    tensor = tensor.repeat_interleave(times, axis)
                tensor = tensor.narrow(axis, 0, size)
        return tensor.contiguous() if contiguous else tensor

    return map_tensors(with_sizes, args, kwargs)


def _step(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def shape_of(text: str) -> tuple[int, ...]:
    """The shape that a user writes as "1x3x224x224".

    Raises:
        UnusableInput: it cannot be read so.
    """
    parts = text.lower().replace("×", "x").split("x")
    if not all(part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UnusableInput(
            f"{text!r} is not a shape: write the sizes of all axes with x between them, such as 1x3x224x224"
        )
    return tuple(int(part) for part in parts)
