"""A folded network that takes pixels: behind the normalisation of an image, and folded again with it.

What can be part of the first convolution becomes part of it, proven like any other fold; the package is
compared with the original network behind the same normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from reparamkit.capture.export import capture
from reparamkit.compare.network import Network
from reparamkit.errors import UnusableInput
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.lower.coreml.images import INNER, PIXELS, Normalised, Scaled, pixels_of, shift_of
from reparamkit.lower.coreml.network import Packaged
from reparamkit.lower.coreml.options import ImageInput
from reparamkit.lower.lowering import Lowering
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.quiet import quiet


def behind_an_image(folded: Packaged, lowering: Lowering, image: ImageInput) -> Packaged:
    """The folded network behind the normalisation of an image, folded again.

    Raises:
        UnusableInput: the network takes something else than one image.
    """
    example = _image_example(lowering, image)
    pixels = pixels_of(example, image)
    free = {axis for axis in folded.axes.get(0, {}) if axis > 0}
    dynamic = "auto" if free else False
    with quiet():
        whole = _refolded(Normalised(lowering.module, image, example.dtype), pixels, dynamic)
    shift = None
    if whole.operators > sum(lowering.after.values()):
        with quiet():
            whole = _refolded(Scaled(lowering.module, image, example.dtype), pixels, dynamic)
        shift = shift_of(image)
    _move_stem(whole.module, lowering.module)
    axes = {axis: symbol for axis, symbol in whole.axes.items() if axis in free}
    original = Normalised(lowering.original, image, example.dtype).eval()
    label = lowering.network.label
    network = Network(
        label,
        TorchRunner(whole.module),
        example=((pixels,), {}),
        original=Network(label, TorchRunner(original)),
    )
    return Packaged(
        network,
        {0: axes} if axes else {},
        folded.facts,
        folded.input_names,
        image_bias=shift,
        inner=INNER,
        kinds={0: PIXELS},
    )


@dataclass(frozen=True)
class _Refolded:
    """A folded module, how many operators it calls, and its input's free axes."""

    module: fx.GraphModule
    operators: int
    axes: dict[int, str]


def _refolded(network: nn.Module, pixels: torch.Tensor, dynamic: str | bool) -> _Refolded:
    program = capture(network.eval(), (pixels,), {}, dynamic=dynamic)
    module = fold_program(program).module
    counts = census(module.graph, dict(module.named_modules()))
    return _Refolded(module, sum(counts.values()), program.axes.get(0, {}))


def _move_stem(whole: nn.Module, folded: nn.Module) -> None:
    """Put the layer that took the normalisation in where the layer was that it took the place of."""
    made = [
        str(node.target)
        for node in whole.graph.nodes  # type: ignore[union-attr]
        if node.op == "call_module" and _path(node) and not f"{node.target}.".startswith(f"{INNER}.")
    ]
    before = {_path(node) for node in _readers(folded)} - {""}
    if len(made) != 1 or len(before) != 1:
        return
    place = f"{INNER}.{before.pop()}"
    assert isinstance(whole, fx.GraphModule)
    whole.add_submodule(place, whole.get_submodule(made[0]))
    whole.delete_submodule(made[0])
    for node in whole.graph.nodes:
        if node.op == "call_module" and node.target == made[0]:
            node.target = place
    whole.recompile()


def _readers(module: nn.Module) -> list[fx.Node]:
    """The operators that read a network's inputs."""
    assert isinstance(module, fx.GraphModule)
    return [user for node in module.graph.nodes if node.op == "placeholder" for user in node.users]


def _path(node: fx.Node) -> str:
    """The path of the layer that an operator is; empty for one that has no weights."""
    if node.op == "call_module":
        assert node.graph.owning_module is not None
        layer = node.graph.owning_module.get_submodule(str(node.target))
        return str(node.target) if isinstance(getattr(layer, "weight", None), torch.Tensor) else ""
    names = [str(each.target) for each in node.all_input_nodes if each.op == "get_attr"]
    return next((name.removesuffix(".weight") for name in names if name.endswith(".weight")), "")


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
