"""A folded network as a Core ML package: what is exported, and what the package has to agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.program import Program
from reparamkit.compare.float64.reference import Reference, inputs_accepted_by
from reparamkit.compare.inputs.sizes import DynamicAxes
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.lower.coreml.metadata import Facts, digest
from reparamkit.lower.exported import (
    axis_names,
    export_program,
    free_axes,
    free_shapes,
    freed_example,
    inner_sizes_of,
    input_shapes,
)
from reparamkit.lower.unguardable_axes import exportable_axes as without
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.text import first_line

if TYPE_CHECKING:
    from reparamkit.result import Folded


class FoldedNetwork:
    """A folded network, and the original that a package of it has to agree with."""

    image_bias: tuple[float, ...] | None = None
    inner = ""

    def __init__(self, folded: Folded) -> None:
        assert isinstance(folded._program, Program)
        _check_float32(folded._program, folded._inputs)
        self._folded = folded
        self._program = folded._program
        self.inputs = folded._inputs
        self.axes: DynamicAxes = without(folded._program, folded._settled)
        self.facts = facts_of(folded)
        self.input_names = input_names(folded)

    def export(self, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
        """The folded network at the sizes of these inputs, with these axes free."""
        return export(self._folded.module, inputs, axes)

    def reference(self, inputs: tuple[Args, Kwargs], program: ExportedProgram) -> Reference:
        """The original's runs, at the folded network's own example those that there are already."""
        if inputs is self.inputs:
            return self._folded._get_reference()
        return widened(Reference(self._folded._original, *inputs), program)


def _check_float32(program: Program, inputs: tuple[Args, Kwargs]) -> None:
    weights = ((name, program.state[name]) for name in sorted(program.parameters))
    for name, tensor in [*tensor_leaves(*inputs), *weights]:
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UnusableInput(
                f"Core ML packages are made of float32 networks, and here {name!r} is {dtype}: give the "
                "network and its inputs as float32 (a package of the precision float16 computes in float16)"
            )


def facts_of(folded: Folded) -> Facts:
    """What a package's metadata say of a folded network."""
    program = folded._program
    assert isinstance(program, Program)
    exported = program.exported
    state = {**exported.state_dict, **exported.constants}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return Facts(digest(exported.graph, tensors), len(folded.folds), folded.before, folded.after)


def input_names(folded: Folded) -> list[str]:
    """What the network's own forward calls its tensors."""
    assert isinstance(folded._program, Program)
    return [name for name, _ in input_shapes(folded._program.exported)]


def export(module: nn.Module, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
    """A folded module at the sizes of these inputs, with these axes free as far as they can be.

    Raises:
        CannotCapture: it does not take these sizes, or cannot be exported.
    """
    # coremltools takes no other order of the axes in memory.
    inputs = map_tensors(lambda _, tensor: tensor.contiguous(), *inputs)
    try:
        module(*inputs[0], **inputs[1])
    except ValueError as error:
        raise CannotCapture(f"the folded network does not take this size: {first_line(error)}") from error
    return export_program(module, *freed_example(*inputs, axes), free_shapes(*inputs, axes))


def widened(reference: Reference, program: ExportedProgram) -> Reference:
    """A reference that is probed at other sizes that a program takes, too."""
    axes, ranges = free_axes(program)
    if axes:
        names: dict[str, Any] = axis_names(program)
        reference.widen(
            {i: {axis: names[symbol] for axis, symbol in found.items()} for i, found in axes.items()},
            {names[symbol]: bounds for symbol, bounds in ranges.items() if symbol in names},
            inputs_accepted_by(program),
            inner=inner_sizes_of(program, names),
        )
    return reference
