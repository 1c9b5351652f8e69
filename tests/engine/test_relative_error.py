"""What the proof of a region catches: each channel alone, wrong numbers of either side, wrong rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.engine import layers, unrolled
from reparamkit.engine.form import Terms
from reparamkit.engine.layers import Layer, Realisation, realise
from reparamkit.engine.relative_error import relative_error
from reparamkit.hosts.fx import planned as planning
from tests.nets import Net, fold, fold_and_compare, noise, randomised


def _apart(dims: int, largest: float, *, linear: bool = False) -> tuple[nn.Module, Tensor]:
    """A layer whose first channel is `largest` times as large as the others, and an input."""
    scale = torch.tensor([largest, 1.0, 1.0, 1.0], dtype=torch.float64)
    if linear:
        net: nn.Module = Net(lambda s, x: s.layer(x) * s.scale, layer=nn.Linear(3, 4), scale=scale)
        return randomised(net), noise(5, 3)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    scale = scale.view(4, *(1,) * dims)
    net = Net(lambda s, x: s.layer(x) * s.scale, layer=conv(3, 4, 3, padding=1), scale=scale)
    return randomised(net), noise(2, 3, *(6, 5, 4)[:dims])


CASES: dict[str, Callable[[float], tuple[nn.Module, Tensor]]] = {
    "1d": lambda largest: _apart(1, largest),
    "2d": lambda largest: _apart(2, largest),
    "3d": lambda largest: _apart(3, largest),
    "linear": lambda largest: _apart(0, largest, linear=True),
}


def _realising(change: Callable[[nn.Module], None]) -> Callable[[Terms], Realisation]:
    def wrong(terms: Terms, *options: Any, **named: Any) -> Realisation:
        made = realise(terms, *options, **named)
        items = []
        for item in made.layers:
            module = copy.deepcopy(item.module)
            if module is not None:
                change(module)
            items.append(Layer(item.source, module, item.pad))
        return replace(made, layers=tuple(items))

    return wrong


def _zeroed(module: Any) -> None:
    module.weight.data[1:] = 0.0
    module.bias.data[1:] = 0.0


@pytest.mark.parametrize("largest", [1.0, 1e7, 1e12])
@pytest.mark.parametrize("case", CASES)
def test_channels_of_zero_beside_a_large_one_are_not_proven(
    case: str, largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = CASES[case](largest)
    assert len(fold(net, x).folds) == 1
    monkeypatch.setattr(planning, "realise", _realising(_zeroed))
    net, x = CASES[case](largest)
    done = fold(net, x)
    assert done.folds == ()
    assert "float64 check failed" in done.reasons()


def test_one_weight_of_a_small_channel_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(module: Any) -> None:
        module.weight.data[2, 0] *= 1 + 1e-8

    monkeypatch.setattr(planning, "realise", _realising(change))
    net, x = CASES["2d"](1e9)
    assert fold(net, x).folds == ()


@pytest.mark.parametrize("left", [1e-3, 1e-9, 1e-12, 0.0])
def test_a_channel_that_cancels_is_held_against_its_terms(left: float) -> None:
    """It is smaller than the rounding errors of what it is the difference of, on either side."""
    net = randomised(
        Net(
            lambda s, x: s.norm(s.conv(x)) - s.conv(x) * s.same,
            conv=nn.Conv2d(3, 4, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(4),
            same=torch.ones(4, 1, 1),
        )
    ).double()
    with torch.no_grad():
        norm = net.get_submodule("norm")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight[1] = torch.sqrt(norm.get_buffer("running_var")[1] + norm.eps) * (1 + left)
        norm.bias[1] = norm.get_buffer("running_mean")[1] * (1 + left)
    done = fold(net, noise(2, 3, 6, 7))
    assert len(done.folds) == 1, done.reasons()
    done.compare(noise(2, 3, 6, 7))


def test_an_error_that_is_no_number_is_never_small() -> None:
    a = noise(2, 3, 4)
    for wrong in (torch.nan, torch.inf):
        b = a.clone()
        b[1, 2, 3] = wrong
        for pair in ((a, b), (b, a), (b, b)):
            assert not relative_error(*pair, [1], lambda: a.float()) <= 1e-10


def test_without_a_second_opinion_a_small_channel_keeps_its_scale() -> None:
    a = noise(2, 3, 4)
    b = a.clone()
    a[:, 0] *= 1e-14
    b[:, 0] = 0.0
    assert relative_error(a, b, [1], lambda: torch.full_like(a, torch.nan)) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [0.0, 1.01, -1.0])
@pytest.mark.parametrize("channels", [4, 96])
def test_the_two_sides_share_no_convolution(
    wrong: float, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the new layers are computed with may be wrong, also together with the layers themselves."""
    make = lambda: randomised(  # noqa: E731
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=4), nn.BatchNorm2d(channels))
    )
    convolve, x = unrolled.convolve, noise(1, channels, 5, 5)
    used: list[bool] = []

    def broken(*args: Any) -> Tensor | None:
        result = convolve(*args)
        used.append(result is not None)
        return None if result is None else result * wrong

    monkeypatch.setattr(layers, "convolve", broken)
    assert fold(make(), x).folds == ()
    assert any(used)

    def scaled(module: Any) -> None:
        module.weight.data.mul_(wrong)
        module.bias.data.mul_(wrong)

    monkeypatch.setattr(layers, "convolve", convolve)
    monkeypatch.setattr(planning, "realise", _realising(scaled))
    assert fold(make(), x).folds == ()


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "0.3 % off": lambda w: w * 1.003,
    "by way of half": lambda w: w.half().to(w.dtype),
    "by way of bfloat16": lambda w: w.bfloat16().to(w.dtype),
    "one ulp up": lambda w: torch.nextafter(w, torch.full_like(w, torch.inf)),
    "left in float64": lambda w: w.double(),
    "one number lost": lambda w: w * (torch.arange(w.numel()).view(w.shape) != 1),
    "not rounded but turned": lambda w: w.flip(0),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_numbers_that_are_rounded_wrongly_after_the_proof_are_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = Realisation.rounded

    def wrong(self: Realisation, like: Tensor) -> bool:
        fits = rounded(self, like)
        for item in self.layers:
            for parameter in item.module.parameters() if item.module is not None else ():
                parameter.data = ROUNDINGS[name](parameter.data)
        return fits

    monkeypatch.setattr(Realisation, "rounded", wrong)
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    done = fold(net, noise(2, 3, 6, 6, dtype=torch.float32), dtype=torch.float32)
    assert done.folds == ()
    assert "instead of" in done.reasons() or "differs from the proven one" in done.reasons()


_ALL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        *((dtype, factor) for dtype in _ALL for factor in (1.0, 1e-4)),
        *((dtype, 3e-38) for dtype in _ALL if dtype is not torch.float16),  # where all of them would vanish
    ],
)
def test_right_rounding_is_no_alarm(dtype: torch.dtype, factor: float) -> None:
    """Also where numbers are below the normal ones of the type."""
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net.get_parameter("1.weight").mul_(factor)
        net.get_parameter("1.bias").mul_(factor)
    done = fold(net, noise(2, 3, 4, 4, dtype=dtype), dtype=dtype)
    assert len(done.folds) == 1, done.reasons()


def test_padding_keeps_its_factor(subtests: pytest.Subtests) -> None:
    """pad(2·x) is no pad of x: the kernel of ones that a pad promises has become one of twos."""
    pad = nn.functional.pad
    for function in (
        lambda s, x: pad(x * 2.0, (1, 1, 1, 1)),
        lambda s, x: pad(x + x, (1, 1, 1, 1)),
        lambda s, x: pad(x / 4.0 + x, (1, 0, 2, 1)),
        lambda s, x: pad(pad(x, (1, 1, 1, 1)), (1, 1, 1, 1)),
        lambda s, x: pad(pad(x, (0, 1, 2, 1)), (1, 0, 0, 1)),
        lambda s, x: pad(x * 3.0, (1, 1)),
        lambda s, x: (x * 2.0)[:, :, 1:-1, ::2],
        lambda s, x: pad(x * 2.0, (2, 2, 2, 2)) + pad(x, (2, 2, 2, 2)),
        lambda s, x: pad(x.relu(), (1, 1, 1, 1))[:, :, 1:-1, 1:-1].relu(),
    ):
        with subtests.test(str(function)):
            done = fold_and_compare(Net(function), noise(2, 3, 7, 8))
            assert "check failed" not in done.reasons()
            assert "shape" not in done.reasons()


SIZED: dict[str, tuple[Callable[[Any, Tensor], Any], tuple[int, ...]]] = {
    "squeeze that does nothing": (lambda s, x: s.b(s.a(x).squeeze(0)), (2, 3, 6)),
    "squeeze of a side": (lambda s, x: s.b(s.a(x).squeeze(-1)), (2, 3, 6)),
    "squeeze of several": (lambda s, x: s.b(s.a(x).squeeze((0, 2))), (2, 3, 6)),
    "squeeze of all": (lambda s, x: s.b(s.a(x).squeeze()), (2, 3, 6)),
    "a slice of all": (lambda s, x: s.b(s.a(x)[:, :, 0:6]), (2, 3, 6)),
    "a slice beyond the end": (lambda s, x: s.b(s.a(x)[:, :, :100]), (2, 3, 6)),
    "a slice to a fixed end": (lambda s, x: s.b(s.a(x)[:, :, 1:6]), (2, 3, 6)),
    "flatten of one axis": (lambda s, x: s.b(s.a(x).flatten(2)), (2, 3, 6)),
    "view as it is": (lambda s, x: s.b(s.a(x).view(2, 3, 6)), (2, 3, 6)),
    "expand to itself": (lambda s, x: s.b(s.a(x).expand(2, -1, 6)), (2, 3, 6)),
}


@pytest.mark.parametrize("name", SIZED)
def test_operators_that_a_size_decides_on_are_no_reason_to_undo_a_fold(name: str) -> None:
    function, shape = SIZED[name]
    net = randomised(Net(function, a=nn.Conv1d(3, 3, 1), b=nn.Conv1d(3, 2, 3)))
    done = fold_and_compare(net, noise(*shape))
    assert [len(done.folds), "check failed" in done.reasons(), "shape" in done.reasons()] == [1, False, False]
    assert done.count(noise(*shape))[0] == 1
