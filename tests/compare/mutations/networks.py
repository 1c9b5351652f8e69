"""The networks whose folds are mutated: small, with random weights, folded and written as ONNX once each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Generator, Tensor, fx, nn

import reparamkit
from fixtures import catalogue
from reparamkit.lower.onnx import save_onnx
from reparamkit.models import create, randomize
from reparamkit.models.replknet import RepLKNet, RepLKNetConfig

BLOCK_SHARE = 32.0
"""How many mutations a block gets of `FULL_COUNT`, half of them of its ONNX file."""

MODEL_SHARES = {
    "mobileone_s0": 32.0,
    "mobileone_s1": 12.0,
    "mobileone_s4": 8.0,
    "repvgg_a0": 24.0,
    "repvgg_d2se": 4.0,
    "fastvit_t8": 20.0,
    "fastvit_sa12": 10.0,
    "convnextv2_atto": 20.0,
    "replknet_narrow": 18.0,
}
"""The same for the reference models: the larger, the fewer."""

FULL_COUNT = 2100

_SLOW_FOLDS = {"dbb": 1, "dbb_grouped": 1, "dbb_depthwise": 1, "ecb": 1, "ecb_widening": 1, "repvgg_d2se": 0}
_IMAGE, _OTHER_IMAGE = (2, 3, 64, 64), (1, 3, 64, 96)


@dataclass
class Network:
    """A network, its fold and the file that was written from the fold.

    Attributes:
        name: a block of the catalogue or a reference model.
        seed: what its weights are drawn from.
        original: as it is trained, in evaluation mode.
        folded: what `reparamkit.fold` makes of it; mutated in place, and put back each time.
        example: what it is compared on; `other` has other sizes.
        path: the ONNX file of the fold.
        refolds: how many times it is worth folding again from a changed original.
        original64, folded64: the two in float64, with the very weights that they have in float32.
        onnx: the content of the file.
    """

    name: str
    seed: int
    original: nn.Module
    folded: fx.GraphModule
    example: tuple[Tensor, ...]
    other: tuple[Tensor, ...]
    path: Path
    refolds: int

    def __post_init__(self) -> None:
        # Now, and not when it is first asked for: by then the fold may be mutated.
        self.original64 = copy.deepcopy(self.original).double()
        self.folded64 = copy.deepcopy(self.folded).double()
        self.onnx = onnx.load(self.path)


_NOT_IN_ONNX = frozenset(("transposed_norm_grouped", "transposed_branches_grouped"))
"""ONNX's reference evaluator, which says what a changed file computes, fails at grouped transposed layers."""


def names() -> list[str]:
    """Every network, the models last."""
    return [*(name for name in catalogue.BLOCKS if name not in _NOT_IN_ONNX), *MODEL_SHARES]


def shares(count: int, chosen: list[str]) -> dict[str, int]:
    """How many mutations each of these networks gets, `count` in all; those that get none are left out."""
    weights = {name: MODEL_SHARES.get(name, BLOCK_SHARE) for name in chosen}
    total, so_far, given = sum(weights.values()), 0.0, 0
    found = {}
    for name, weight in weights.items():
        so_far += weight
        upto = round(count * so_far / total)
        if upto > given:
            found[name] = upto - given
        given = upto
    return found


def build(name: str, seed: int, folder: Path) -> Network:
    """Make the network `name` with weights drawn from `seed`, fold it and write it into `folder`."""
    if name in catalogue.BLOCKS:
        entry = catalogue.BLOCKS[name]
        original = randomize(entry.make(), sum(map(ord, name)) + 1000 * seed).eval()
        inputs = entry.sizes.inputs()
        traced, sizes = inputs["odd"], [inputs["odd"], inputs["even"]]
        if (sum(map(ord, name)) + seed) % 2:
            sizes.reverse()
        refolds = _SLOW_FOLDS.get(name, 4)
    else:
        original = _MAKERS.get(name, _registered(name))(seed)
        generator = Generator().manual_seed(seed + 1)
        sizes = [(torch.randn(shape, generator=generator),) for shape in (_IMAGE, _OTHER_IMAGE)]
        traced, refolds = sizes[0], _SLOW_FOLDS.get(name, 2)
    folded = reparamkit.fold(original, traced, verify=False)
    path = folder / f"{name}.onnx"
    save_onnx(
        folded.lowering.all_free, path
    )  # `folded.save` would check it, and that is what is on trial here
    assert isinstance(folded.module, fx.GraphModule)
    return Network(name, seed, original, folded.module, sizes[0], sizes[1], path, refolds)


def _registered(name: str) -> Callable[[int], nn.Module]:
    return lambda seed: create(name, num_classes=10, seed=seed)


def _replknet_narrow(seed: int) -> nn.Module:
    """RepLKNet-31B's kernels on few channels: judging the whole 31B takes minutes for each mutation."""
    config = RepLKNetConfig((31, 29, 27, 13), (16, 24, 32, 48), pairs=(1, 1, 2, 1))
    sample = torch.randn(8, 3, 64, 64, generator=Generator().manual_seed(seed))
    return randomize(RepLKNet(config, 10), seed, sample=sample).eval()


_MAKERS: dict[str, Callable[[int], nn.Module]] = {"replknet_narrow": _replknet_narrow}
