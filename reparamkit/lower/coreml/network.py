"""What a Core ML package is made of: a folded network, alone or behind the normalisation of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.input_spec import Kind
from reparamkit.compare.inputs.probes import thorough_probes
from reparamkit.compare.inputs.sizes import DynamicAxes
from reparamkit.compare.network import Network
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.lower.exported import export_program, free_shapes, freed_example
from reparamkit.lower.facts import Facts
from reparamkit.lower.lowering import Lowering, free_sizes_in, module_of
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.text import dtype_name, first_line


@dataclass(frozen=True)
class Packaged:
    """A network that becomes a package.

    Attributes:
        network: it, its example, and the original that the package has to agree with.
        axes: those that may be free in a package, flat tensor index -> axis -> symbol.
        facts: for the package's metadata.
        input_names: of the tensors, in order.
        image_bias: for an image input, what Core ML adds to its channels before the network.
        kinds: the values that inputs have to keep to, by flat index.
    """

    network: Network
    axes: DynamicAxes
    facts: Facts
    input_names: Sequence[str]
    image_bias: tuple[float, ...] | None = None
    kinds: dict[int, Kind] | None = None

    @property
    def example(self) -> tuple[Args, Kwargs]:
        """The example."""
        assert self.network.example is not None
        return self.network.example

    def export(self, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
        """The network at the sizes of these inputs, with these axes free as far as they can be.

        Raises:
            CannotCapture: it does not take these sizes, or cannot be exported with them.
        """
        module = module_of(self.network)
        # coremltools takes no other order of the axes in memory.
        inputs = map_tensors(lambda _, tensor: tensor.contiguous(), *inputs)
        try:
            module(*inputs[0], **inputs[1])
        except ValueError as error:
            raise CannotCapture(f"the folded network does not take this size: {first_line(error)}") from error
        return export_program(module, *freed_example(*inputs, axes), free_shapes(*inputs, axes))

    def recorded(self, inputs: tuple[Args, Kwargs], program: ExportedProgram) -> Reference:
        """What the package has to agree with, probed at these inputs and at other sizes of `program`."""
        if inputs is self.example and self.kinds is None:
            return self.network.reference
        assert self.network.original is not None
        planned = None if self.kinds is None else thorough_probes(*inputs, seed=0, kinds=self.kinds)
        return Reference(self.network.original.runner, *inputs, free=free_sizes_in(program), planned=planned)


def packaged(lowering: Lowering) -> Packaged:
    """A folded network as it becomes a package.

    Raises:
        UnusableInput: it computes in another type than float32.
    """
    program = lowering.program
    weights = ((name, program.state[name]) for name in sorted(program.parameters))
    for name, tensor in [*tensor_leaves(*lowering.example), *weights]:
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            dtype = dtype_name(tensor.dtype)
            raise UnusableInput(
                f"Core ML packages are made of float32 networks, and here {name!r} is {dtype}: give the "
                "network and its inputs as float32 (a package of the precision float16 computes in float16)"
            )
    return Packaged(
        lowering.network,
        lowering.axes(refuses_sizes=False),
        lowering.facts,
        lowering.input_names,
    )
