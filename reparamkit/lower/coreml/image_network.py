"""A network that takes pixels: the captured network behind the normalisation of an image, folded.

The normalisation stands in front of the graph before that is folded, so that what of it can be part of the
first layer becomes part of it, proven like any other fold. The package is compared with the original network
behind the same normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from reparamkit.capture.canonical import symbolic_sizes
from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.compare.network import Network
from reparamkit.errors import UnusableInput
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.lower.coreml.images import PIXELS, Normalised, pixels_of, shift_and_factor, shift_of
from reparamkit.lower.coreml.network import Packaged
from reparamkit.lower.coreml.options import ImageInput
from reparamkit.lower.exported import free_shapes
from reparamkit.lower.lowering import Lowering
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.quiet import quiet

aten = torch.ops.aten
_OWNERS = "nn_module_stack"


def behind_an_image(folded: Packaged, lowering: Lowering, image: ImageInput) -> Packaged:
    """The network behind the normalisation of an image, folded with it.

    Raises:
        UnusableInput: the network takes something else than one image.
    """
    dtype = _image_example(lowering, image).dtype
    example = map_tensors(lambda _, tensor: tensor[:1], *lowering.example)
    axes = {axis: symbol for axis, symbol in folded.axes.get(0, {}).items() if axis > 1}
    program = lowering.program
    with quiet():
        if any(axis == 1 for axis, _ in symbolic_sizes(_tensor_of(program.graph))):
            # Captured for any number of channels, which says nothing of these.
            free = free_shapes(*example, {0: axes} if axes else {})
            program = capture(lowering.module, *example, dynamic=free)
        module, shift = _folded_behind(program, lowering, image, dtype)
    label = lowering.network.label
    network = Network(
        label,
        TorchRunner(module),
        example=map_tensors(lambda _, tensor: pixels_of(tensor, image), *example),
        original=Network(label, TorchRunner(Normalised(lowering.original, image, dtype))),
    )
    return replace(
        folded, network=network, axes={0: axes} if axes else {}, image_bias=shift, kinds={0: PIXELS}
    )


def _folded_behind(
    program: Program, lowering: Lowering, image: ImageInput, dtype: torch.dtype
) -> tuple[nn.Module, tuple[float, ...] | None]:
    """The network behind the factor, and the shift that is Core ML's; None where the network has that too."""
    shift, factor = shift_and_factor(image, dtype)
    if shift.any():
        whole = _folded(lowering, normalised(program, image, shift, factor))
        counts = census(whole.graph, dict(whole.named_modules()))
        if sum(counts.values()) <= sum(lowering.after.values()):
            return whole, None
    return _folded(lowering, normalised(program, image, None, factor)), shift_of(image)


def _folded(lowering: Lowering, program: Program) -> fx.GraphModule:
    return fold_program(program, merge_siblings=lowering.merge_siblings).module


def normalised(
    program: Program, image: ImageInput, shift: torch.Tensor | None, factor: torch.Tensor
) -> Program:
    """A captured network with (pixels + shift) · factor in front of its only tensor, unfolded."""

    def pixels(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return map_tensors(lambda _, tensor: pixels_of(tensor, image), args, kwargs)

    args, kwargs = pixels(program.args, program.kwargs)
    ordinary = None if program.ordinary is None else pixels(*program.ordinary)
    # The witness runs the network on what it was captured with, which pixels are not.
    program = replace(program.copy(), args=args, kwargs=kwargs, ordinary=ordinary, witness=None)
    graph, given = program.graph, _tensor_of(program.graph)
    readers = [
        node
        for node in given.users
        if node.target is not aten.sym_size.int
        and not (node.target is aten.copy_.default and node.args[0] is given)
    ]
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    value, like = given, given.meta["val"]
    for name, operator, constant in (("shift", aten.add.Tensor, shift), ("factor", aten.mul.Tensor, factor)):
        if constant is None:
            continue
        name = f"image_{name}"
        while name in program.state:
            name += "_"
        program.state[name] = constant
        with graph.inserting_before(first):
            stored = graph.create_node("get_attr", name)
            value = graph.call_function(operator, (value, stored))
        stored.meta["val"] = like.fake_mode.from_tensor(constant, static_shapes=True)
        value.meta |= {"val": like, _OWNERS: _common_owners(readers)}
    for node in readers:
        node.replace_input_with(given, value)
    return program


def _tensor_of(graph: fx.Graph) -> fx.Node:
    given: fx.Node
    (given,) = (
        node
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
    )
    return given


def _common_owners(nodes: Sequence[fx.Node]) -> dict[str, Any]:
    """The modules that all of them lie in: what becomes one layer with them lies there, too."""
    stacks = [node.meta.get(_OWNERS) or {} for node in nodes]
    return {
        key: owner for key, owner in (stacks or [{}])[0].items() if all(s.get(key) == owner for s in stacks)
    }


def _image_example(lowering: Lowering, image: ImageInput) -> torch.Tensor:
    leaves = tensor_leaves(*lowering.example)
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
    if shape[0] != 1 and 0 not in lowering.program.axes.get(0, {}):
        raise UnusableInput(
            f"Core ML takes one image at a time, and the network was captured with the fixed batch "
            f"{shape[0]}: give an example with a batch of one"
        )
    return example
