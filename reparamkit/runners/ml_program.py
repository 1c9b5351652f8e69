"""An .mlpackage that holds a Core ML program, whoever runs it: what it says of itself, and what it takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from reparamkit.errors import UnusableInput
from reparamkit.mil.graph import MilInput, MilProgram
from reparamkit.mil.program import open_program
from reparamkit.runners.base import InputSpec, least_precise, match_inputs
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.text import dtype_name, shape_text

_QUANTISED = ("quantize", "dequantize")
_DENSE_CONSTEXPR = ("constexpr_cast", "constexpr_sparse_to_dense")


class ProgramFile:
    """The file, read once.

    Attributes:
        program: what the file holds.
        declared: its inputs; the length of a free axis is called by the input and the axis, "x[2]". An image
            input is float32 of shape (1, channels, height, width), its values pixels from 0 to 255.
        ranges: smallest and largest length of each free axis.
        listed: input -> the only shapes that it may have, where the file lists them.
        output_names: in the file's order.
        precision: "int8" where weights or activations are quantised or palettised, "float16" where any
            floating-point value or weight is, else "float32".
        operators: how many of each the program holds.

    Raises:
        MissingExtra: coremltools is not installed.
        UnusableInput: the file cannot be read, or is no ML program.
    """

    structured = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.program = open_program(path)
        self.declared = [_spec_of(entry) for entry in self.program.inputs]
        self.ranges = {
            f"{entry.name}[{axis}]": (low, high)
            for entry in self.program.inputs
            for axis, (low, high) in enumerate(_bounds(entry))
            if low != high
        }
        self.listed = {
            entry.name: entry.allowed for entry in self.program.inputs if entry.allowed is not None
        }
        self.output_names = list(self.program.outputs)
        self.precision = _precision_of(self.program)

    @property
    def operators(self) -> Counter[str]:
        return self.program.counts

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether Core ML would take inputs of these sizes."""
        try:
            self.feed(args, kwargs)
        except UnusableInput:
            return False
        return True

    def feed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors under the names of the file's inputs, in its types.

        Raises:
            UnusableInput: there are more or fewer, or one has another type, a length that is not allowed or a
                value that does not fit.
        """
        where = self.path.name
        leaves = [(name, tensor.detach().cpu()) for name, tensor in tensor_leaves(args, kwargs)]
        matched = match_inputs([InputSpec(spec.name, None, None) for spec in self.declared], leaves, where)
        converted = [(spec.name, _converted(matched[spec.name], spec, where)) for spec in self.declared]
        fed = match_inputs(self.declared, converted, where)
        for entry in self.program.inputs:
            shape = tuple(fed[entry.name].shape)
            if not entry.accepts(shape):
                raise UnusableInput(
                    f"input {entry.name!r} of {where} takes {_allowed(entry)}, not {shape_text(shape)}"
                )
        return fed


def _spec_of(entry: MilInput) -> InputSpec:
    """What a file says of an input, as every runner declares it."""
    shape: list[int | str] = list(entry.shape)
    for axis, (low, high) in enumerate(_bounds(entry)):
        if low != high:
            shape[axis] = f"{entry.name}[{axis}]"
    dtype = torch.float32 if entry.image else entry.dtype
    return InputSpec(entry.name, tuple(shape), dtype, entry.shape)


def _precision_of(program: MilProgram) -> str:
    """As in `StatesPrecision`."""
    kinds = program.counts
    packed = [kind for kind in kinds if kind.startswith("constexpr_") and kind not in _DENSE_CONSTEXPR]
    if packed or any(kind in kinds for kind in _QUANTISED):
        return "int8"
    computed = {port.dtype for operation in program.operations for port in operation.outputs}
    kept = {
        value.dtype for value in program.constants.values() if isinstance(value, torch.Tensor) and value.dim()
    }
    return least_precise({dtype for dtype in computed | kept if dtype is not None} | {torch.float32})


def _converted(tensor: torch.Tensor, spec: InputSpec, where: str) -> torch.Tensor:
    wanted = spec.dtype
    if wanted is None or tensor.dtype is wanted:
        return tensor
    if tensor.dtype is torch.bool:
        return tensor.to(wanted)
    if tensor.is_floating_point() or tensor.is_complex() or wanted.is_floating_point or wanted is torch.bool:
        return tensor
    limits = torch.iinfo(wanted)
    if tensor.numel() and (int(tensor.min()) < limits.min or int(tensor.max()) > limits.max):
        raise UnusableInput(
            f"input {spec.name!r} of {where} is {dtype_name(wanted)}, and a value is too large for it"
        )
    return tensor.to(wanted)


def _bounds(entry: MilInput) -> list[tuple[int, int | None]]:
    if entry.allowed is not None and len({len(shape) for shape in entry.allowed}) == 1:
        return [(min(sizes), max(sizes)) for sizes in zip(*entry.allowed, strict=True)]
    if entry.ranges is not None:
        return list(entry.ranges)
    return [(size, size) for size in entry.shape]


def _allowed(entry: MilInput) -> str:
    if entry.allowed is not None:
        return " or ".join(map(shape_text, entry.allowed))
    if entry.ranges is None:
        return shape_text(entry.shape)
    return "x".join(
        str(low) if low == high else f"({low} to {high if high is not None else 'any'})"
        for low, high in entry.ranges
    )
