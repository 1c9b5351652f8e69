"""Folds that would add work: a layer twice, a padding more, a product more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.engine.laws.left import Parts, left
from tests.nets import Net, noise

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def _vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def _snake(s: Any, x: Tensor) -> Tensor:
    return x + torch.sin(s.alpha * x).pow(2) / 3.0


@pytest.mark.parametrize("inputs", [1, 16])
@pytest.mark.parametrize("window", [1, 7])
def test_no_layer_is_copied_to_save_a_product(inputs: int, window: int) -> None:
    """DAC's encoder: its first convolution reads one channel, so computing it again would move less."""
    conv = nn.Conv1d(inputs, 16, window, padding=window // 2)
    kept = left(lambda s, x: _snake(s, s.conv(x)), noise(1, inputs, 90), conv=conv, alpha=_vector(1, 16, 1))
    assert kept == {"conv1d": 1, "mul": 1, "sin": 1, "pow": 1, "div": 1, "add": 1}


def test_why_the_product_stays() -> None:
    net = Net(lambda s, x: _snake(s, s.conv(x)), conv=nn.Conv1d(1, 16, 1), alpha=_vector(1, 16, 1))
    outcome = fold_program(capture(net.double().eval(), (noise(1, 1, 90),), dynamic=False))
    assert "conv1d 'conv' has other readers, and would be computed twice" in str(outcome.refusals[0])


def test_no_layer_is_copied_to_save_a_sum() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        y = s.conv(x)
        return (y + x).relu(), y.exp()

    kept = left(forward, noise(1, 1, 90), conv=nn.Conv1d(1, 1, 3, padding=1))
    assert kept == {"conv1d": 1, "add": 1, "relu": 1, "exp": 1}


def test_a_layer_with_other_readers_may_still_become_part_of_another_one() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        y = s.one(x)
        return (y + s.two(x)).relu(), y.exp()

    kept = left(forward, noise(2, 4, 90), one=nn.Conv1d(4, 4, 1), two=nn.Conv1d(4, 4, 3, padding=1))
    assert kept == {"conv1d": 2, "relu": 1, "exp": 1}


def test_two_scales_of_one_layer_are_still_two_layers_where_it_is_not_read_itself() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        y = s.conv(x)
        return (y * s.a).relu(), (y * s.b).exp()

    parts: Parts = {"conv": nn.Conv2d(1, 4, 1), "a": _vector(4, 1, 1), "b": _vector(4, 1, 1)}
    kept = left(forward, noise(2, 1, 8, 8), **parts)
    assert kept == {"conv2d": 2, "relu": 1, "exp": 1}


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_even_windows_with_same_padding_need_no_padding_of_their_own(dynamic: Any) -> None:
    parts = {
        "two": nn.Conv2d(4, 4, 2, padding="same"),
        "four": nn.Conv2d(4, 4, (4, 3), padding="same"),
        "three": nn.Conv2d(4, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
    }
    x = noise(2, 4, 7, 8)
    kept = left(lambda s, x: (s.two(x) + s.norm(s.four(x)) + s.three(x) + x).relu(), x, dynamic, **parts)
    assert kept == {"conv2d": 1, "relu": 1}


@pytest.mark.parametrize("dilation", [1, 3])
def test_one_even_window_alone(dilation: int) -> None:
    conv = nn.Conv1d(4, 5, 4, padding="same", dilation=dilation)
    kept = left(lambda s, x: s.norm(s.conv(x)).relu(), noise(2, 4, 15), conv=conv, norm=nn.BatchNorm1d(5))
    assert kept == {"conv1d": 1, "relu": 1}


def test_uneven_padding_that_has_no_name_is_spelt_out() -> None:
    """No warning of torch's where the network gave none."""
    kept = left(
        lambda s, x: s.norm(s.conv(F.pad(x, (0, 1)))).relu(),
        noise(2, 4, 15),
        conv=nn.Conv1d(4, 5, 2),
        norm=nn.BatchNorm1d(5),
    )
    assert kept.pop("pad", 0) + kept.pop("constant_pad_nd", 0) == 1
    assert kept == {"conv1d": 1, "relu": 1}


@pytest.mark.parametrize("dynamic", [False, "batch"])
def test_a_grid_stays_whole_in_front_of_a_split(dynamic: Any) -> None:
    """RT-DETR's decoder: 2 · grid - 1 is one product and one difference for all levels."""
    parts = {"places": nn.Linear(4, 24), "value": nn.Conv2d(4, 4, 1)}
    kept = left(
        lambda s, x: [F.grid_sample(s.value(x), g, align_corners=False) for g in _levels(s, x)],
        noise(2, 4, 6, 7),
        dynamic,
        **parts,
    )
    assert kept.get("mul", 0) <= 1
    assert kept.get("sub", 0) + kept.get("add", 0) <= 1


def _levels(s: Any, x: Tensor) -> Any:
    grid = 2 * s.places(x.mean((2, 3))).sigmoid().unflatten(1, (12, 1, 2)) - 1
    return grid.split([3, 4, 5], 1)


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_layer_that_is_cut_behind_a_view_stays_one(dynamic: Any) -> None:
    """GPT-2's attention: one `addmm` for q, k and v, behind a norm whose weight it could take in."""

    def forward(s: Any, x: Tensor) -> Any:
        whole = torch.addmm(s.bias, s.norm(x).view(-1, 6), s.weight).view(*x.shape[:2], 12)
        q, k, v = whole.split(4, -1)
        return (q @ k.transpose(1, 2)).softmax(-1) @ v

    parts: Parts = {"norm": nn.LayerNorm(6), "weight": _vector(6, 12), "bias": _vector(12)}
    kept = left(forward, noise(2, 5, 6), dynamic, **parts)
    assert kept.get("linear", 0) + kept.get("addmm", 0) == 1
