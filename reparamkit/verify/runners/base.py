"""What a back end must offer to be compared, and the names of outputs.

The comparator knows no back end: a runner takes the arguments of the reference's forward and returns named
tensors on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils import _pytree as pytree

from reparamkit.errors import UnusableInput

NamedTensors = list[tuple[str, torch.Tensor]]


@runtime_checkable
class Runner(Protocol):
    """One network on one back end.

    Attributes:
        name: what it runs, for messages: "torch", "ONNX Runtime".
        structured: its output names come from the structure of a Python return value, so they mean
            something when they differ. A flat list of a file's outputs may be matched by position.
    """

    @property
    def name(self) -> str: ...

    @property
    def structured(self) -> bool: ...

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs for these inputs, flattened, in order, on the CPU. The inputs may be overwritten."""
        ...


def named_outputs(value: Any) -> NamedTensors:
    """Flatten what a forward returned into named tensors on the CPU.

    A lone tensor is called "output"; an element of a tuple, dict, dataclass or registered pytree is called
    by its index, key, field or path ("map.0"). `None` is skipped; a number becomes a tensor without axes.

    Raises:
        UnusableInput: for a value that has no numbers to compare, such as a text.
    """
    if isinstance(value, torch.Tensor):
        return [("output", _plain(value))]
    return list(_walk(value, ""))


def _walk(value: Any, path: str) -> NamedTensors:
    if value is None:
        return []
    if isinstance(value, torch.Tensor):
        return [(path, _plain(value))]
    if isinstance(value, (bool, int, float, complex)):
        return [(path or "output", torch.tensor(value))]
    found: NamedTensors = []
    for key, part in _parts(value, path):
        found += _walk(part, f"{path}.{key}" if path else str(key))
    return found


def _parts(value: Any, path: str) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value):
        return [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    if type(value) in pytree.SUPPORTED_NODES:
        return list(enumerate(pytree.tree_leaves(value)))
    where = f" at {path!r}" if path else ""
    raise UnusableInput(f"the model returns a {type(value).__name__}{where}, which cannot be compared")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.is_sparse or tensor.is_quantized or tensor.layout is not torch.strided:
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    return tensor.cpu()
