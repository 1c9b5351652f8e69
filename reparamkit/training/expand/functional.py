"""Networks whose convolutions are no modules: captured as a graph, each convolution is given a module.

The graph is that of `rk.fold`. It is captured in evaluation mode, so the batch norms of the network are
constants in it and go into the convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from reparamkit.api import fold
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.loading.source import Source
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.training.expand.layers import CONVOLUTIONS

NOTE = (
    "its convolutions are functions of parameters, so it was captured as a graph in evaluation mode: batch "
    "norms are part of the convolutions in it, and dropout stays off in training"
)


def captured(model: nn.Module | ExportedProgram, args: Args, kwargs: Kwargs) -> nn.Module:
    """A graph module that computes what the model does, with an `nn.Conv` for each convolution.

    Raises:
        UnusableInput: it cannot be captured, nor any part of it.
    """
    try:
        module = fold(Source(model, "", None, args, kwargs)).module
    except CannotCapture as error:
        raise UnusableInput(
            f"the network has no convolution modules, and cannot be captured as a graph ({error.reason}): "
            "write its convolutions as nn.Conv2d"
        ) from error
    for graph_module in [each for each in module.modules() if isinstance(each, fx.GraphModule)]:
        _give_modules(graph_module)
    return module


def _give_modules(root: fx.GraphModule) -> None:
    for node in list(root.graph.nodes):
        arguments = _arguments(node)
        if arguments is None:
            continue
        module = _module_of(root, arguments)
        if module is None:
            continue
        weight_path = str(arguments["weight"].target)
        path = _free(root, weight_path)
        root.add_submodule(path, module)
        with root.graph.inserting_before(node):
            call = root.graph.call_module(path, (arguments["input"],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        root.graph.erase_node(node)
        for constant in (arguments["weight"], arguments.get("bias")):
            if isinstance(constant, fx.Node) and not constant.users:
                root.graph.erase_node(constant)
    _drop_unused(root)
    root.recompile()


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    """What a node that convolves with constants is called with, by name; None for any other."""
    aten = torch.ops.aten
    operators = [aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten._convolution_mode]
    if node.op != "call_function" or getattr(node.target, "overloadpacket", None) not in operators:
        return None
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if given.get("transposed", False):
        return None
    constants = [given["weight"], given.get("bias")]
    if any(c is not None and (not isinstance(c, fx.Node) or c.op != "get_attr") for c in constants):
        return None
    return given


def _module_of(root: nn.Module, given: dict[str, Any]) -> nn.Module | None:
    weight = _tensor(root, given["weight"])
    bias = _tensor(root, given["bias"]) if given.get("bias") is not None else None
    if weight is None or len(given["weight"].users) > 1:
        return None
    axes = weight.ndim - 2
    sizes = {
        name: _repeated(given.get(name, default), axes)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    groups = given.get("groups", 1)
    module: nn.Module = CONVOLUTIONS[axes - 1](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        **sizes,
        groups=groups,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            if value is not None:
                held = module.get_parameter(name)
                held.copy_(value)
                held.requires_grad_(value.requires_grad)
    return module.train(root.training)


def _tensor(root: nn.Module, node: fx.Node) -> torch.Tensor | None:
    path, _, last = str(node.target).rpartition(".")
    value = getattr(root.get_submodule(path), last)
    return value if isinstance(value, nn.Parameter) else None


def _repeated(value: Any, axes: int) -> Any:
    if isinstance(value, str):
        return value
    sizes = [value] if isinstance(value, int) else list(value)
    return tuple(sizes * axes if len(sizes) == 1 else sizes)


def _free(root: nn.Module, weight_path: str) -> str:
    """`stem.conv` for a weight called `stem.weight`, `w1_conv` for one called `w1`, numbered if taken."""
    path, _, last = weight_path.rpartition(".")
    parent = root.get_submodule(path)
    name = "conv" if last == "weight" else f"{last}_conv"
    number = 0
    while hasattr(parent, f"{name}_{number}" if number else name):
        number += 1
    return ".".join(filter(None, (path, f"{name}_{number}" if number else name)))


def _drop_unused(root: fx.GraphModule) -> None:
    """Parameters that no node reads any more would be saved and never trained."""
    used = {str(node.target) for node in root.graph.nodes if node.op == "get_attr"}
    for path, module in list(root.named_modules()):
        if isinstance(module, fx.GraphModule | nn.modules.conv._ConvNd) and module is not root:
            continue
        if type(module) not in (nn.Module, type(root)):
            continue
        for name in list(module._parameters):
            if ".".join(filter(None, (path, name))) not in used:
                del module._parameters[name]
