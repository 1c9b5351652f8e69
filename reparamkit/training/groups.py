"""Which parameters decay, and which learn more slowly.

Weights of convolutions and linear layers decay; biases, norms, scales and tokens do not. With layer-wise
decay, a parameter of layer l of L learns at γ^(L − l) times the learning rate: a pre-trained encoder's first
layers hardly move (Clark et al., 2020, arXiv:2003.10555).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from reparamkit.errors import UnusableInput
from reparamkit.models.convnextv2 import ConvNeXtV2


def decays(model: nn.Module) -> dict[str, bool]:
    """Name of each trainable parameter -> whether weight decay is applied to it.

    A model may name exceptions of its own, as timm's do (`no_weight_decay`).
    """
    own_exceptions: Any = getattr(model, "no_weight_decay", None)
    exempt = set(own_exceptions()) if callable(own_exceptions) else set()
    layers = {path for path, module in model.named_modules() if isinstance(module, _ConvNd | nn.Linear)}
    chosen = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, _, own_name = name.rpartition(".")
        if name in exempt or own_name == "bias":
            chosen[name] = False
        elif owner in layers:
            chosen[name] = True
        else:
            chosen[name] = sum(side > 1 for side in parameter.shape) > 1
    return chosen


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer, one for every rate and decay; no parameter is in two of them.

    Raises UnusableInput for a `layer_decay` other than 1 where the order of the layers is not known.
    """
    depth = layer_numbers(model) if layer_decay != 1 else None
    last = max(depth.values()) if depth else 0
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    parameters = dict(model.named_parameters())
    for name, decayed in decays(model).items():
        rate = lr * layer_decay ** (last - depth[name]) if depth else lr
        decay = weight_decay if decayed else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameters[name])
    return list(groups.values())


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Name of each parameter -> number of its layer, from 0 for the stem upwards.

    Known for ConvNeXt V2 (one layer for each block, as its authors count) and for timm's models, which
    say it themselves. Raises UnusableInput for any other.
    """
    number: Callable[[str], int]
    names = [name for name, _ in model.named_parameters()]
    if isinstance(model, ConvNeXtV2):
        blocks = [len(list(stage.children())) for stage in model.stages]
        number = _convnextv2(blocks)
        return {name: number(name) for name in names}
    matcher: Any = getattr(model, "group_matcher", None)
    if callable(matcher):
        from timm.models import group_parameters

        members = group_parameters(model, matcher(coarse=False))
        return {name: place for place, group in members.items() for name in group}
    raise UnusableInput(
        f"layer_decay needs to know which layer comes after which, and a {type(model).__name__} does not "
        "say; it works for ConvNeXt V2 and timm's networks"
    )


def _convnextv2(blocks: list[int]) -> Callable[[str], int]:
    """Number of a ConvNeXt V2 parameter's layer: a downsampling layer counts with the block behind it."""
    before = [sum(blocks[:stage]) for stage in range(len(blocks))]

    def number(name: str) -> int:
        stem = re.match(r"downsample_layers\.(\d+)\.", name)
        if stem:
            stage = int(stem[1])
            return 0 if stage == 0 else before[stage] + 1
        block = re.match(r"stages\.(\d+)\.(\d+)\.", name)
        if block:
            return before[int(block[1])] + int(block[2]) + 1
        return sum(blocks) + 1

    return number
