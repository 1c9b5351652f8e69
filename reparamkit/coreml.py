"""A folded network as a Core ML package: what is exported, and what the package has to agree with.

With an image as the input, the normalisation of the pixels is put in front of the folded network and the two
are folded together, so that what can be part of the first convolution becomes part of it, proven like any
other fold; the package is compared with the original network behind the same normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.program import Program
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.inputs import Args, Kwargs, tensor_leaves
from reparamkit.lower.coreml import CoreMlOptions, Facts, ImageInput, digest, save_coreml
from reparamkit.lower.coreml.images import INNER, PIXELS, Normalised, Scaled, pixels_of, shift_of
from reparamkit.lower.exported import (
    axis_names,
    export_program,
    free_axes,
    free_shapes,
    freed_example,
    input_shapes,
)
from reparamkit.quiet import quiet
from reparamkit.verify import Reference, inputs_accepted_by
from reparamkit.verify.oracle import first_line
from reparamkit.verify.probes import thorough_probes
from reparamkit.verify.sizes import DynamicAxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from reparamkit.folded import Folded
    from reparamkit.lower import Saved


def save_as_package(
    folded: Folded, path: Path, options: CoreMlOptions | None, before_it_appears: Callable[[], object]
) -> Saved:
    """Write a folded network as an `.mlpackage`; errors as for `save_coreml`."""
    options = options or CoreMlOptions()
    subject = FoldedNetwork(folded) if options.image is None else _behind_an_image(folded, options.image)
    return save_coreml(subject, path, options, before_it_appears=before_it_appears)


class FoldedNetwork:
    """A folded network, and the original that a package of it has to agree with."""

    image_bias: tuple[float, ...] | None = None
    inner = ""

    def __init__(self, folded: Folded) -> None:
        assert isinstance(folded._program, Program)
        self._folded = folded
        self._program = folded._program
        self.inputs = folded._inputs
        self.axes: DynamicAxes = folded._program.axes
        self.facts = facts_of(folded)
        self.input_names = _input_names(folded)

    def export(self, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
        """The folded network at the sizes of these inputs, with these axes free."""
        return _export(self._folded.module, inputs, axes)

    def reference(self, inputs: tuple[Args, Kwargs], program: ExportedProgram) -> Reference:
        """The original's runs, at the folded network's own example those that there are already."""
        if inputs is self.inputs:
            return self._folded._get_reference()
        return _widened(Reference(self._folded._original, *inputs), program)


@dataclass
class _ImageNetwork:
    """A network that takes pixels."""

    module: nn.Module
    original: nn.Module
    inputs: tuple[Args, Kwargs]
    axes: DynamicAxes
    facts: Facts
    image_bias: tuple[float, ...] | None
    input_names: list[str]
    inner: str = INNER

    def export(self, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
        return _export(self.module, inputs, axes)

    def reference(self, inputs: tuple[Args, Kwargs], program: ExportedProgram) -> Reference:
        planned = thorough_probes(*inputs, seed=0, kinds={0: PIXELS})
        return _widened(Reference(self.original, *inputs, planned=planned), program)


def _behind_an_image(folded: Folded, image: ImageInput) -> _ImageNetwork:
    """The folded network behind the normalisation of an image, folded again.

    Raises:
        UnusableInput: the network takes something else than one image.
    """
    from reparamkit.api import fold

    program = folded._program
    assert isinstance(program, Program)
    example = _image_example(folded, image)
    pixels = pixels_of(example, image)
    free = {axis for axis in program.axes.get(0, {}) if axis > 0}
    dynamic = "auto" if free else False
    with quiet():
        whole = fold(Normalised(folded.module, image, example.dtype), pixels, dynamic=dynamic, verify=False)
    shift = None
    if sum(whole.after.values()) > sum(folded.after.values()):
        with quiet():
            whole = fold(Scaled(folded.module, image, example.dtype), pixels, dynamic=dynamic, verify=False)
        shift = shift_of(image)
    original = folded._original
    if isinstance(original, ExportedProgram):
        original = original.module()
    assert isinstance(whole._program, Program)
    axes = {axis: symbol for axis, symbol in whole._program.axes.get(0, {}).items() if axis in free}
    return _ImageNetwork(
        whole.module,
        Normalised(original, image, example.dtype).eval(),
        ((pixels,), {}),
        {0: axes} if axes else {},
        facts_of(folded),
        shift,
        _input_names(folded),
    )


def _image_example(folded: Folded, image: ImageInput) -> torch.Tensor:
    args, kwargs = folded._inputs
    leaves = tensor_leaves(args, kwargs)
    if len(leaves) != 1:
        raise UnusableInput(f"an image input is for a network with one input, and this one has {len(leaves)}")
    example = leaves[0][1]
    shape = tuple(example.shape)
    if len(shape) != 4 or not example.is_floating_point():
        raise UnusableInput(
            "an image input is for a network that takes floating-point numbers of the shape (batch, "
            f"channels, height, width); this one takes {example.dtype} of the shape {shape}"
        )
    if shape[1] != image.channels:
        raise UnusableInput(
            f"a {image.colour} image has {image.channels} channels, and the network takes {shape[1]}"
        )
    assert isinstance(folded._program, Program)
    if shape[0] != 1 and 0 not in folded._program.axes.get(0, {}):
        raise UnusableInput(
            f"Core ML takes one image at a time, and the network was captured with the fixed batch "
            f"{shape[0]}: give an example with a batch of one"
        )
    return example


def facts_of(folded: Folded) -> Facts:
    """What a package's metadata say of a folded network."""
    program = folded._program
    assert isinstance(program, Program)
    exported = program.exported
    state = {**exported.state_dict, **exported.constants}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return Facts(digest(exported.graph, tensors), len(folded.folds), folded.before, folded.after)


def _input_names(folded: Folded) -> list[str]:
    assert isinstance(folded._program, Program)
    return [name for name, _ in input_shapes(folded._program.exported)]


def _export(module: nn.Module, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
    try:
        module(*inputs[0], **inputs[1])
    except ValueError as error:
        raise CannotCapture(f"the folded network does not take this size: {first_line(error)}") from error
    return export_program(module, *freed_example(*inputs, axes), free_shapes(*inputs, axes))


def _widened(reference: Reference, program: ExportedProgram) -> Reference:
    axes, ranges = free_axes(program)
    if axes:
        names: dict[str, Any] = axis_names(program)
        reference.widen(
            {i: {axis: names[symbol] for axis, symbol in found.items()} for i, found in axes.items()},
            {names[symbol]: bounds for symbol, bounds in ranges.items() if symbol in names},
            inputs_accepted_by(program),
        )
    return reference
