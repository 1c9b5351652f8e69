"""Profit: what must merge, what must not, and the formula behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.algebra import Geometry, Scalar, geometry
from reparamkit.algebra.transposed import transposed
from reparamkit.engine import cost
from reparamkit.operators import Value
from tests.nets import Net, fold_and_compare, nodes_of, noise, randomised


def _conv(inputs: int, outputs: int, window: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, window, padding=options.pop("padding", window // 2), **options)


MERGE: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "convolution and norm": (lambda: nn.Sequential(_conv(16, 16), nn.BatchNorm2d(16)), (1, 0, 0)),
    "norm and 1x1": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(16), _conv(16, 16, 1)), (1, 0, 0)),
    "RepVGG": (
        lambda: Net(
            lambda s, x: s.na(s.a(x)) + s.nb(s.b(x)) + s.nc(x),
            a=_conv(16, 16),
            b=_conv(16, 16, 1),
            na=nn.BatchNorm2d(16),
            nb=nn.BatchNorm2d(16),
            nc=nn.BatchNorm2d(16),
        ),
        (1, 0, 0),
    ),
    "depthwise with identity": (lambda: Net(lambda s, x: s.a(x) + x, a=_conv(16, 16, groups=16)), (1, 0, 0)),
    "dilated beside dense (UniRepLKNet)": (
        lambda: Net(
            lambda s, x: s.a(x) + s.b(x),
            a=_conv(16, 16, 5, groups=16),
            b=_conv(16, 16, 3, groups=16, dilation=2, padding=2),
        ),
        (1, 0, 0),
    ),
    "1x1 then 3x3 (DBB)": (
        lambda: Net(
            lambda s, x: s.a(x) + s.c(s.b(x)),
            a=_conv(16, 16, padding=0),
            b=_conv(16, 16, 1),
            c=_conv(16, 16, padding=0),
        ),
        (1, 0, 0),
    ),
    "1x1 then average pooling (DBB)": (
        lambda: Net(lambda s, x: s.a(x) + s.p(s.b(x)), a=_conv(16, 16), b=_conv(16, 16, 1, bias=False),
                    p=nn.AvgPool2d(3, 1, 1)),
        (1, 0, 0),
    ),
    "layer scale after": (
        lambda: Net(lambda s, x: s.a(x) * s.scale, a=_conv(16, 16), scale=nn.Parameter(noise(16, 1, 1))),
        (1, 0, 0),
    ),
    "uneven padding before": (
        lambda: nn.Sequential(nn.ZeroPad2d(1), _conv(16, 16, padding=0)),
        (1, 0, 0),
    ),
}  # fmt: skip

STAY: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "depthwise then pointwise": (lambda: nn.Sequential(_conv(16, 16, groups=16), _conv(16, 16, 1)), 2),
    "pointwise then depthwise": (
        lambda: nn.Sequential(_conv(16, 64, 1, bias=False), _conv(64, 64, groups=64)),
        2,
    ),
    "linear bottleneck": (lambda: nn.Sequential(_conv(64, 4, 1), _conv(4, 64, 1)), 2),
    "two 3x3": (lambda: nn.Sequential(_conv(16, 16, padding=0), _conv(16, 16, padding=0)), 2),
    "two read by two": (
        lambda: Net(
            lambda s, x: torch.cat([(y := s.a(x)).relu(), s.b(y).relu()], 1),
            a=_conv(16, 16, 1),
            b=_conv(16, 16, 5),
        ),
        2,
    ),
    "average pooling then 1x1": (lambda: nn.Sequential(nn.AvgPool2d(4), _conv(16, 32, 1)), 1),
}


@pytest.mark.parametrize("name", MERGE)
def test_what_becomes_one_layer(name: str) -> None:
    make, counts = MERGE[name]
    x = noise(1, 16, 14, 14)
    assert fold_and_compare(randomised(make()), x).count(x) == counts


@pytest.mark.parametrize("name", STAY)
def test_what_is_exact_and_stays_apart(name: str) -> None:
    make, convs = STAY[name]
    x = noise(1, 64 if "bottleneck" in name else 16, 16, 16)
    done = fold_and_compare(randomised(make()), x)
    assert done.count(x)[0] == convs
    if name != "two read by two":
        assert "is exact but dearer" in done.reasons()


def test_pooling_is_kept_where_a_dense_layer_would_replace_it() -> None:
    x = noise(1, 16, 16, 16)
    done = fold_and_compare(randomised(nn.Sequential(nn.AvgPool2d(4), _conv(16, 32, 1))), x)
    assert any("avg_pool2d" in str(n.target) for n in nodes_of(done.module))


def _value(*shape: int) -> Value:
    return Value(0, shape, shape, torch.float32, "x")


def test_the_cost_of_a_convolution_is_its_macs_and_what_it_moves() -> None:
    g = geometry.convolution(8, 16, 2, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), has_bias=True)
    read, written, weights = 2 * 8 * 25, 2 * 16 * 25, 16 * 4 * 9
    expected = written * 4 * 9 + cost.KAPPA * (read + written + weights + 16)
    assert cost.layer(g, _value(2, 8, 5, 5), _value(2, 16, 5, 5)) == expected


def test_uneven_padding_costs_a_pass_over_the_padded_input() -> None:
    def conv(far: int) -> Geometry:
        return geometry.convolution(8, 8, 8, (3,), (1,), (1,), (1,), (far,), has_bias=False)

    even = cost.layer(conv(1), _value(1, 8, 10), _value(1, 8, 10))
    uneven = cost.layer(conv(2), _value(1, 8, 10), _value(1, 8, 11))
    padded = 8 * 13
    assert uneven - even == 8 * 3 + cost.KAPPA * (8 * 11 - 8 * 10 + padded - 80 + 2 * padded)


def test_a_transposed_convolution_multiplies_once_for_every_input_and_tap() -> None:
    t = transposed(8, 16, 2, (4, 4), (2, 2), (1, 1), (1, 1), (0, 0), has_bias=True)
    read, written, weights = 2 * 8 * 25, 2 * 16 * 100, 16 * 4 * 16
    expected = read * 8 * 16 + cost.KAPPA * (read + written + weights + 16)
    assert cost.layer(t, _value(2, 8, 5, 5), _value(2, 16, 10, 10)) == expected


def test_taps_of_zero_that_torch_needs_are_paid_for() -> None:
    t = transposed(8, 8, 8, (2,), (2,), (1,), (0,), (0,), has_bias=False)
    cropped = replace(t, extent=(t.extent[0] - 1,))
    assert cost.layer(cropped, _value(1, 8, 10), _value(1, 8, 19)) == 80 * 3 + cost.KAPPA * (80 + 152 + 24)


def test_nothing_costs_nothing_and_a_factor_costs_a_pass() -> None:
    x = _value(2, 3, 4)
    assert cost.layer(Scalar(identity=True), x, x) == 0.0
    assert cost.layer(Scalar(), x, x) == 24 + cost.KAPPA * 48


@pytest.mark.parametrize(("a", "b"), [*itertools.pairwise([8, 16, 32, 64])])
def test_more_channels_cost_more(a: int, b: int) -> None:
    def price(channels: int) -> float:
        g = geometry.pointwise(channels, channels, 1, 2, has_bias=True)
        return cost.layer(g, _value(1, channels, 7, 7), _value(1, channels, 7, 7))

    assert price(a) < price(b)


@pytest.mark.parametrize(
    "nothing", [lambda y: F.dropout(y, training=False), lambda y: y[..., : y.shape[-1]], lambda y: y + 0]
)
def test_a_pool_does_not_become_a_layer_for_what_does_nothing_behind_it(nothing: Any) -> None:
    done = fold_and_compare(Net(lambda s, x: nothing(F.avg_pool1d(x.tanh(), 2)).exp()), noise(2, 32, 20))
    assert done.folds == ()
    assert any("avg_pool1d" in str(n.target) for n in nodes_of(done.module))


def test_a_layer_that_several_read_by_way_of_a_view_does_not_run_again_for_a_product() -> None:
    """DAC's Snake activation reshapes what it is given, and reads that twice."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.conv(x.tanh())
        seen = y.reshape(y.shape[0], y.shape[1], -1)
        return (seen + (s.alpha * seen).sin().square()).reshape(y.shape)

    conv, alpha = nn.Conv1d(8, 8, 7, padding=3), nn.Parameter(torch.ones(1, 8, 1))
    done = fold_and_compare(randomised(Net(forward, conv=conv, alpha=alpha)), noise(2, 8, 40))
    assert done.count(noise(2, 8, 40))[0] == 1


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("above", [torch.relu, lambda x: x.relu() + x.sigmoid()], ids=["a value", "a sum"])
def test_a_norm_goes_by_way_of_a_view_into_all_that_read_it(
    readers: int, above: Callable[[Tensor], Tensor]
) -> None:
    """As in NextViT: the sum above a norm exists with the norm and without it, and is no reason to stay."""

    def forward(s: Any, x: Tensor) -> tuple[Tensor, ...]:
        seen = s.norm(above(x)).flatten(2).transpose(1, 2)
        return tuple(layer(seen) for layer in (s.q, s.k, s.v)[:readers])

    layers = {name: nn.Linear(8, 8) for name in ("q", "k", "v")}
    done = fold_and_compare(randomised(Net(forward, norm=nn.BatchNorm2d(8), **layers)), noise(2, 8, 6, 5))
    assert not any("batch_norm" in str(node.target) for node in nodes_of(done.module))


@pytest.mark.parametrize("cut", [False, True], ids=["a view", "rows and back"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_goes_into_the_layer_above_it_and_not_into_one_reader(cut: bool, bias: bool) -> None:
    """LeViT: the layer above exists for the norm alone, so that nobody else has it free."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x)
        y = s.norm(y.flatten(0, 1)).reshape_as(y) if cut else s.norm(y.transpose(1, 2)).transpose(1, 2)
        return y + s.back(F.hardswish(s.reader(y)))

    layers = {name: nn.Linear(16, 16, bias=bias) for name in ("first", "reader", "back")}
    network = randomised(Net(forward, norm=nn.BatchNorm1d(16), **layers))
    done = fold_and_compare(network, noise(2, 9, 16))
    targets = [str(node.target) for node in nodes_of(done.module)]
    assert not any("batch_norm" in target or "aten.mul" in target for target in targets)


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_a_norm_behind_a_convolution_goes_into_it_whoever_reads_it(readers: int) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x)).flatten(2).transpose(1, 2)
        return y + sum(layer(y).sigmoid() for layer in (s.q, s.k, s.v)[:readers])

    layers = {name: nn.Linear(8, 8) for name in ("q", "k", "v")}
    network = randomised(Net(forward, conv=_conv(8, 8, bias=False), norm=nn.BatchNorm2d(8), **layers))
    done = fold_and_compare(network, noise(2, 8, 6, 5))
    assert not any("batch_norm" in str(node.target) for node in nodes_of(done.module))
