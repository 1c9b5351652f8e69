"""What a back end must offer to be compared, and the names of outputs.

The comparator knows no back end: a runner takes the arguments of the reference's forward and returns named
tensors on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils import _pytree as pytree

from reparamkit.errors import UnusableInput
from reparamkit.support.text import dtype_name

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


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a file says of one of its inputs.

    Attributes:
        name: as in the file.
        shape: the length of each axis, or the name of its symbol where it is free; None where nothing is
            said, not even how many axes there are. Axes of one symbol are as long as each other.
        dtype: None where torch has no such type.
        usual: a shape that it may have, where the file names one although sizes are free.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: torch.dtype | None
    usual: tuple[int, ...] | None = None


@runtime_checkable
class DeclaresInputs(Protocol):
    """A runner that knows the inputs of what it runs."""

    @property
    def declared(self) -> list[InputSpec]: ...


@runtime_checkable
class RefusesSizes(Protocol):
    """A runner that knows which sizes what it runs refuses."""

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether it would run on inputs of these sizes."""
        ...


@runtime_checkable
class BoundsSizes(RefusesSizes, Protocol):
    """A runner that knows how far the free sizes of its inputs go.

    Attributes:
        ranges: name of a free axis in `declared` -> its smallest and largest size, None where unbounded.
        listed: input -> the only shapes that it may have, for inputs for which they are listed.
    """

    @property
    def ranges(self) -> dict[str, tuple[int, int | None]]: ...

    @property
    def listed(self) -> dict[str, tuple[tuple[int, ...], ...]]: ...


@runtime_checkable
class StatesPrecision(Protocol):
    """A runner that knows how precise its network can be at best.

    `precision` is "float64", "float32", "bfloat16", "float16" or "int8", the least precise of its weights;
    "int8" stands for every quantised network.
    """

    @property
    def precision(self) -> str: ...


@runtime_checkable
class ComputesInFloat64(Protocol):
    """A runner that can be had computing in float64, from its weights as they are stored."""

    def in_float64(self) -> Runner: ...


@runtime_checkable
class Jitterable(Protocol):
    """A runner that can be had with weights that are off by a few ulp (see `reparamkit.runners.jitter`)."""

    def jittered(self, seed: int) -> Runner: ...


@dataclass(frozen=True)
class ExactSums:
    """A network with its long sums taken in float64.

    Attributes:
        runner: runs it.
        complete: all of them are; where it is not, some are added up in an order of the back end's own.
    """

    runner: Runner
    complete: bool


@runtime_checkable
class SumsExactly(Protocol):
    """A runner that can be had with its long sums taken in float64, None where it has none."""

    def with_exact_sums(self) -> ExactSums | None: ...


def match_inputs(
    declared: list[InputSpec], leaves: list[tuple[str, torch.Tensor]], where: str
) -> dict[str, torch.Tensor]:
    """Which tensor goes to which input: those of the same name to each other, the rest in order.

    Args:
        declared: the inputs of a file.
        leaves: names and tensors, in call order.
        where: the file, for messages.

    Raises:
        UnusableInput: there are more or fewer tensors than inputs, or one has another dtype.
    """
    names = [spec.name for spec in declared]
    if len(leaves) != len(names):
        raise UnusableInput(
            f"{where} takes {len(names)} inputs ({', '.join(names)}), "
            f"the reference takes {len(leaves)} tensors"
        )
    matched = {name: tensor for name, tensor in leaves if name in names}
    unnamed = (tensor for name, tensor in leaves if name not in names)
    for spec in declared:
        if spec.name not in matched:
            matched[spec.name] = next(unnamed)
        dtype = matched[spec.name].dtype
        if spec.dtype is not None and spec.dtype is not dtype:
            raise UnusableInput(
                f"input {spec.name!r} of {where} is {spec.dtype}, the reference takes {dtype}"
            )
    return {name: matched[name] for name in names}


def least_precise(dtypes: set[torch.dtype]) -> str:
    """The name of the least precise floating-point dtype; "float32" where there is none."""
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    worst = max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
    return dtype_name(worst)


def named_outputs(value: Any) -> NamedTensors:
    """Flatten what a forward returned into named tensors on the CPU.

    A lone tensor is called "output"; an element of a tuple, dict, dataclass or registered pytree is called
    by its index, key, field or path ("map.0"). `None` is skipped; a number becomes a tensor without axes.

    Raises:
        UnusableInput: for a value that has no numbers to compare, such as a text.
    """
    return [
        (name, _plain(leaf) if isinstance(leaf, torch.Tensor) else torch.tensor(leaf))
        for name, leaf in named_leaves(value)
    ]


def named_leaves(value: Any) -> list[tuple[str, Any]]:
    """The tensors and numbers of what a forward returned, as they are, named as `named_outputs` names them.

    Raises:
        UnusableInput: as `named_outputs`.
    """
    return _walk(value, "")


def _walk(value: Any, path: str) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if isinstance(value, (torch.Tensor, bool, int, float, complex)):
        return [(path or "output", value)]
    named: list[tuple[str, Any]] = []
    for key, part in _parts(value, path):
        named += _walk(part, f"{path}.{key}" if path else str(key))
    return named


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
