"""The sizes that a fold is proven at: a layer that is off in any one place is off at one of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.engine.form import Terms
from reparamkit.engine.layers import Layer, Realisation, realise
from reparamkit.hosts.fx import planned as planning
from tests.nets import Net, fold, noise, randomised
from tests.slow_share import few

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _chain(dims: int, **attributes: Any) -> Callable[[], nn.Module]:
    """A convolution and a norm: one operator that looks around, or none."""
    return lambda: nn.Sequential(CONVS[dims - 1](4, 4, **attributes), NORMS[dims - 1](4), nn.ReLU())


def _branches(dims: int, stride: int) -> Callable[[], nn.Module]:
    """Two that look around."""
    conv, norm = CONVS[dims - 1], NORMS[dims - 1]
    return lambda: Net(
        lambda s, x: (s.norm(s.wide(x)) + s.narrow(x)).relu(),
        wide=conv(4, 4, 3, stride=stride, padding=1),
        norm=norm(4),
        narrow=conv(4, 4, 1, stride=stride),
    )


NETS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "pointwise": (2, _chain(2, kernel_size=1)),
    "pointwise 1d": (1, _chain(1, kernel_size=1)),
    "3x3": (2, _chain(2, kernel_size=3, padding=1)),
    "3x3 stride 2": (2, _chain(2, kernel_size=3, padding=1, stride=2)),
    "uneven": (2, _chain(2, kernel_size=(3, 5), padding=(1, 0), stride=(1, 3), dilation=(2, 1))),
    "depthwise": (2, _chain(2, kernel_size=5, padding=2, groups=4)),
    "1d stride 2": (1, _chain(1, kernel_size=3, padding=1, stride=2)),
    "3d": (3, _chain(3, kernel_size=3, padding=1, stride=(1, 2, 1))),
    "branches": (2, _branches(2, 1)),
    "branches stride 2": (2, _branches(2, 2)),
}


Change = Callable[[nn.Module], None]
ATTRIBUTES = ("padding", "stride", "dilation")


def _shifted(name: str, axis: int) -> Change:
    def change(layer: nn.Module) -> None:
        values = list(getattr(layer, name))
        values[axis] += 1
        setattr(layer, name, tuple(values))

    return change


def _with(name: str, function: Callable[[Tensor], Tensor]) -> Change:
    def change(layer: nn.Module) -> None:
        setattr(layer, name, nn.Parameter(function(getattr(layer, name).detach().clone())))

    return change


def _last_off(values: Tensor) -> Tensor:
    values.view(-1)[-1] *= 1 + 1e-7
    return values


def _mistakes(dims: int) -> Iterator[tuple[str, Change, tuple[int, ...] | None]]:
    """What may be wrong with a layer: its name, how to bring it about, and a padding to put before it."""
    for axis in range(dims):
        for name in ATTRIBUTES:
            yield f"{name} of axis {axis}", _shifted(name, axis), None
        for side, by in itertools.product(("near", "far"), (1, -1)):
            sides = [0] * (2 * dims)
            sides[2 * (dims - 1 - axis) + (side == "far")] = by
            yield f"{by:+} {side} on axis {axis}", lambda layer: None, tuple(sides)
        yield f"turned on axis {axis}", _with("weight", partial(torch.flip, dims=(2 + axis,))), None
    for name, axis in (("weight", 0), ("weight", 1), ("bias", 0)):
        yield f"{name} exchanged along {axis}", _with(name, partial(torch.roll, shifts=1, dims=axis)), None
    for name in ("weight", "bias"):
        yield f"one number of the {name}", _with(name, _last_off), None


def _same_function(before: nn.Module, after: nn.Module) -> bool:
    def told(layer: Any) -> list[object]:
        # an axis of one tap knows no dilation
        dilation = [d for d, n in zip(layer.dilation, layer.kernel_size, strict=True) if n > 1]
        return [layer.padding, layer.stride, dilation, layer.weight.tolist(), layer.bias.tolist()]

    return told(before) == told(after)


@pytest.mark.parametrize("name", few(NETS, "3x3 stride 2", "branches", "3d"))
def test_a_layer_that_is_off_in_one_place_is_not_proven(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dims, build = NETS[name]
    x = noise(2, 4, *(9, 8, 7)[:dims])
    assert len(fold(randomised(build()), x).folds) == 1
    tried = 0
    for what, change, pad in _mistakes(dims):
        mistaken: list[bool] = []

        def wrong(
            terms: Terms,
            *options: Any,
            change: Change = change,
            pad: Any = pad,
            into: list[bool] = mistaken,
            **named: Any,
        ) -> Realisation:
            made = realise(terms, *options, **named)
            (layer,) = made.layers
            module = copy.deepcopy(layer.module)
            assert module is not None
            assert layer.module is not None
            change(module)
            into.append(pad is not None or not _same_function(layer.module, module))
            return replace(made, layers=(Layer(layer.source, module, pad or layer.pad),))

        monkeypatch.setattr(planning, "realise", wrong)
        done = fold(randomised(build()), x)
        assert mistaken
        if all(mistaken):
            tried += 1
            assert done.folds == (), f"{what}: proven all the same"
            assert done.reasons() != ""
    assert tried > 8
