"""A scale and shift behind a norm by its input's own statistics become the norm's weight and bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.engine.laws.left import Parts, left
from tests.nets import Net, noise, randomised

IMAGE = noise(2, 4, 6, 7)
TOKENS = noise(2, 5, 6)


def _vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


NORMS: dict[str, tuple[nn.Module, Tensor]] = {
    "group_norm": (nn.GroupNorm(2, 4), IMAGE),
    "group_norm without weight": (nn.GroupNorm(4, 4, affine=False), IMAGE),
    "group_norm 1d": (nn.GroupNorm(2, 4, eps=0.1), noise(2, 4, 9)),
    "group_norm 3d": (nn.GroupNorm(1, 4), noise(2, 4, 3, 4, 5)),
    "instance_norm": (nn.InstanceNorm2d(4, affine=True, eps=0.1), IMAGE),
    "instance_norm without weight": (nn.InstanceNorm1d(4), noise(2, 4, 9)),
}


@pytest.mark.diagonal
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_feature_maps(name: str, dynamic: Any) -> None:
    norm, x = NORMS[name]
    sides = (1,) * (x.ndim - 2)
    parts: Parts = {"norm": norm, "w": _vector(4, *sides), "b": _vector(4, *sides)}
    kept = left(lambda s, x: (s.norm(x) * s.w + s.b).relu(), x, dynamic, **parts)
    assert kept == {name.split()[0]: 1, "relu": 1}


LAYER_NORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "scale and shift": lambda s, x: s.norm(x) * s.w + s.b,
    "a number": lambda s, x: s.norm(x) * -0.5 + 2.0,
    "without weight": lambda s, x: F.layer_norm(x, (6,)) * s.w + s.b,
    "without bias": lambda s, x: s.bare(x) * s.w,
    "over two axes": lambda s, x: s.two(x) * s.w + s.b,
    "over two axes, along the first": lambda s, x: s.two(x) * s.first + s.first,
    "a sum of both": lambda s, x: s.norm(x) * s.w - s.norm(x),
    "through a reshape": lambda s, x: s.norm(x).view(-1, 6) * s.w,
}


@pytest.mark.diagonal
@pytest.mark.parametrize("dynamic", [False, "batch"])
@pytest.mark.parametrize("name", LAYER_NORMS)
def test_layer_norms(name: str, dynamic: Any) -> None:
    parts: Parts = {
        "norm": nn.LayerNorm(6, eps=0.1),
        "bare": nn.LayerNorm(6, bias=False),
        "two": nn.LayerNorm((5, 6)),
        "w": _vector(6),
        "b": _vector(6),
        "first": _vector(5, 1),
    }
    kept = left(lambda s, x: LAYER_NORMS[name](s, x).relu(), TOKENS, dynamic, **parts)
    assert kept == {"layer_norm": 1, "relu": 1}


def test_an_rms_norm_takes_a_scale_and_no_shift() -> None:
    parts: Parts = {"norm": nn.RMSNorm(6, eps=0.1), "w": _vector(6), "b": _vector(6)}
    assert left(lambda s, x: (s.norm(x) * s.w).relu(), TOKENS, **parts) == {"rms_norm": 1, "relu": 1}
    kept = left(lambda s, x: (s.norm(x) * s.w + s.b).relu(), TOKENS, **parts)
    assert kept == {"rms_norm": 1, "mul": 1, "add": 1, "relu": 1}


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: (lambda y: (y * s.w).relu() + y.exp())(s.norm(x)),
        lambda s, x: (lambda y: ((y * s.w).relu(), y))(s.norm(x)),
        lambda s, x: (s.norm(x).relu() * s.w).exp(),
        lambda s, x: (s.norm(x) * s.places).exp(),
    ],
    ids=["another reader", "an output", "an activation between", "along the positions"],
)
def test_it_stays(forward: Callable[..., Any]) -> None:
    parts: Parts = {"norm": nn.LayerNorm(6), "w": _vector(6), "places": _vector(5, 1)}
    kept = left(forward, TOKENS, **parts)
    assert (kept["layer_norm"], kept["mul"]) == (1, 1)


def test_a_layer_behind_takes_all_of_it() -> None:
    parts: Parts = {"norm": nn.LayerNorm(6), "w": _vector(6), "b": _vector(6), "layer": nn.Linear(6, 3)}
    kept = left(lambda s, x: s.layer(s.norm(x) * s.w + s.b), TOKENS, **parts)
    assert kept == {"layer_norm": 1, "linear": 1}


def test_it_is_the_same_norm_at_the_path_of_the_norm() -> None:
    """RIFormer's block."""
    net = Net(lambda s, x: (s.norm(x) * s.w + s.b).relu(), norm=nn.GroupNorm(2, 4, eps=0.01))
    net.w, net.b = _vector(4, 1, 1), _vector(4, 1, 1)
    outcome = fold_program(capture(randomised(net.double()), (IMAGE,), dynamic=False))
    (norm,) = (m for m in outcome.module.modules() if isinstance(m, nn.GroupNorm))
    assert outcome.module.get_submodule("norm") is norm
    assert (norm.num_groups, norm.num_channels, norm.eps) == (2, 4, 0.01)
    (fold,) = outcome.folds
    assert fold.layers == {"norm": "GroupNorm"}


def test_a_norm_used_twice() -> None:
    parts: Parts = {"norm": nn.LayerNorm(6), "w": _vector(6)}
    kept = left(lambda s, x: (s.norm(x) * s.w).relu() + s.norm(x.exp()), TOKENS, **parts)
    assert kept == {"layer_norm": 2, "relu": 1, "exp": 1, "add": 1}
