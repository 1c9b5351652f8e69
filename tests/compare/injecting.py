"""Folded networks with one mistake in one block, as modules, `.pt2` and ONNX files."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

import reparamkit as rk
from reparamkit.lower.exported import export_program
from reparamkit.lower.pt2 import save_pt2
from reparamkit.models.fastvit import FastViT, FastViTConfig
from reparamkit.models.mobileone import MobileOne, MobileOneConfig
from reparamkit.models.random_weights import randomize
from reparamkit.models.replknet import RepLKNet, RepLKNetConfig

IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))

SITES = {
    "mobileone": {
        "stage1.0": "reparam_conv",
        "stage3.6": "reparam_conv",
        "stage4.1": "reparam_conv",
    },
    "fastvit": {
        "network.0.0": "token_mixer.reparam_conv",
        "network.4.1": "token_mixer.reparam_conv",
        "network.7.0": "convffn.fc2",
    },
    "replknet": {
        "stages.0.blocks.0": "large_kernel.reparam_conv",
        "stages.2.blocks.2": "large_kernel.reparam_conv",
        "stages.3.blocks.1": "pw2.conv",
    },
}
"""Network -> a first, a middle and a last block, each with the convolution in it that is to be spoilt."""

KINDS = ("scaled", "transposed", "shifted", "unbiased")
FORMS = ("module", "pt2", "onnx", "bare onnx")


@dataclass(frozen=True)
class Subject:
    """A network in its training-time form, and its fold."""

    original: nn.Module
    folded: rk.Folded


@cache
def subject(name: str) -> Subject:
    torch.manual_seed(0)
    build = {
        "mobileone": lambda: MobileOne(MobileOneConfig((0.125, 0.125, 0.125, 0.125), 2), 10),
        "fastvit": lambda: FastViT(FastViTConfig((1, 1, 2, 1), (16, 32, 64, 128), 2), 10),
        "replknet": lambda: RepLKNet(
            RepLKNetConfig((9, 7, 7, 5), (8, 12, 16, 24), 3, pairs=(1, 1, 2, 1)), 10
        ),
    }[name]
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    original = randomize(build().eval(), 1, sample=images)
    return Subject(original, rk.fold(original, IMAGE, dynamic=False))


def injected(name: str, layer: str | None, kind: str, form: str, folder: Path) -> nn.Module | Path:
    """The fold of a network with a mistake in one layer (none for None), in one form."""
    if form in ("module", "pt2"):
        module = copy.deepcopy(subject(name).folded.module)
        if layer is not None:
            _spoil_module(module, layer, kind)
        if form == "module":
            return module
        path = folder / "net.pt2"
        save_pt2(export_program(module, (IMAGE,), {}), path)
        return path
    path = folder / "net.onnx"
    path.write_bytes(_onnx(name))
    model = onnx.load(path)
    if layer is not None:
        _spoil_onnx(model, layer, kind)
    if form == "bare onnx":
        _anonymise(model)
    onnx.save(model, path)
    return path


@cache
def _onnx(name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        subject(name).folded.save(Path(folder) / "net.onnx")
        return (Path(folder) / "net.onnx").read_bytes()


def _spoil_module(module: nn.Module, layer: str, kind: str) -> None:
    conv = module.get_submodule(layer)
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        if kind == "scaled":
            conv.weight.mul_(1.01)
        elif kind == "transposed":
            conv.weight.copy_(_turned(conv.weight))
        elif kind == "unbiased":
            conv.bias.zero_()
        else:
            assert not isinstance(conv.padding, str)
            (rows, columns), conv.padding = conv.padding, (0, 0)
            pad = nn.ZeroPad2d((int(columns) + 1, int(columns) - 1, int(rows), int(rows)))
            module.set_submodule(layer, nn.Sequential(pad, conv))


def _turned(weight: torch.Tensor) -> torch.Tensor:
    """The kernel transposed; of a single tap the output channels in reverse."""
    return weight.flip(0) if weight.shape[2:] == (1, 1) else weight.transpose(2, 3).clone()


def _spoil_onnx(model: onnx.ModelProto, layer: str, kind: str) -> None:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    name = f"{layer}.bias" if kind == "unbiased" else f"{layer}.weight"
    if kind == "shifted":
        node = next(node for node in model.graph.node if name in node.input)
        (pads,) = [entry for entry in node.attribute if entry.name == "pads"]
        pads.ints[1] += 1
        pads.ints[3] -= 1
        return
    values = numpy_helper.to_array(weights[name])
    changed = {
        "scaled": lambda: values * np.float32(1.01),
        "transposed": lambda: _turned(torch.from_numpy(values.copy())).numpy(),
        "unbiased": lambda: np.zeros_like(values),
    }[kind]()
    weights[name].CopyFrom(numpy_helper.from_array(changed, name))


def _anonymise(model: onnx.ModelProto) -> None:
    """Take out every name that means something."""
    ports = {entry.name for entry in [*model.graph.input, *model.graph.output]}
    renamed: dict[str, str] = {}

    def new(name: str) -> str:
        return name if not name or name in ports else renamed.setdefault(name, f"t{len(renamed)}")

    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        del node.metadata_props[:]
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = new(tensor.name)
    del model.graph.value_info[:]
