"""Networks that cannot be captured as a whole, and their fold.

Every network here branches on its data; each is compared with a copy of itself on both sides of the branch.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.submodules.replacement import Absent
from tests.nets import assert_same, noise, randomised


class Block(nn.Module):
    """Two branches with a batch norm each."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.stride = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        result: Tensor = self.wide(x) + self.narrow(x)
        return result


class Gate(nn.Module):
    """A trunk, and another function of its output for either sign of the input's mean."""

    def __init__(self, trunk: nn.Module | None = None, **more: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk or Block()
        for name, module in more.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        y = self.trunk(x)
        return y * 2 if x.mean() > 0 else y - 1


class Stages(Gate):
    """Children that are iterated and not called."""

    def forward(self, x: Tensor) -> Any:
        trunk: Any = self.trunk
        for stage in trunk.values() if isinstance(trunk, nn.ModuleDict) else trunk:
            x = stage(x) if x.mean() > -100 else x - 1
        return x


def image(*shape: int, sign: int = 1, seed: int = 1) -> Tensor:
    """Noise of a mean with a sign."""
    x = noise(*(shape or (2, 4, 9, 8)), seed=seed)
    return x * (1 if float(x.mean()) > 0 else -1) * sign


def assert_folds(
    model: nn.Module, inputs: Any = None, *, also: tuple[Any, ...] = (), **options: Any
) -> rk.Folded:
    """Fold in float64, and compare on the example and `also`, each with either sign; nothing is touched."""
    model = randomised(model).double()
    twin = copy.deepcopy(model)
    tensors, plain = dict(model.state_dict(keep_vars=True)), [vars(m).copy() for m in model.modules()]
    state = torch.get_rng_state()
    inputs = image() if inputs is None else inputs
    folded = rk.fold(model, inputs, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert_same(twin.state_dict(), model.state_dict(), 0)
    assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
    assert [vars(m) for m in model.modules()] == plain
    assert type(folded.module) is type(model)
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    for example in (inputs, *also):
        for sign in (1, -1):
            args, kwargs = ((), example) if isinstance(example, dict) else ((example,), {})
            args, kwargs = torch.utils._pytree.tree_map(
                lambda v, sign=sign: v * sign if isinstance(v, Tensor) else v, (args, kwargs)
            )
            assert_same(twin(*args, **kwargs), folded.module(*args, **kwargs))
    return folded


def taken(found: rk.Folded | rk.Inspection) -> list[str]:
    return [part.where for part in found.parts if part.folded]


def left(found: rk.Folded | rk.Inspection) -> dict[str, str]:
    return {part.where: part.reason for part in found.parts if not part.folded}


def keeps(found: rk.Folded, path: str) -> bool:
    """Whether the part's own layers are still in it."""
    held = [child for name, child in found.module.get_submodule(path).named_children() if name != "folded"]
    assert len({isinstance(child, Absent) for child in held}) == 1
    return not isinstance(held[0], Absent)
