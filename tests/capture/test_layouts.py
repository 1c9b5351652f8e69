"""Writes through reshapes that are views in one memory layout only."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import Net, PairNet, assert_same, noise, randomised
from tests.slow_share import few

X = noise(2, 3, 6, 4, dtype=torch.float32)
LAST = torch.channels_last
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.clone,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "batch inside": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


def _through(view: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.conv(x)
        view(y).add_(1)
        return y

    return forward


def _read_later(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y.flatten(1)
    y.mul_(2)
    return z


def _of_the_input(self: Any, x: Tensor) -> Any:
    x.reshape(x.shape[0], -1).mul_(2)
    return self.conv(x)


def _float_in_channels_last(y: Any) -> Any:
    return y.float(memory_format=torch.channels_last)


HELD: dict[str, Callable[..., Any]] = {
    "permuted and flattened": _through(lambda y: y.permute(0, 2, 3, 1).reshape(-1)),
    "flattened": _through(lambda y: y.flatten(2)),
    "as another": _through(lambda y: y.reshape_as(y.flatten(1).detach())),
    "ravelled": _through(torch.ravel),
    "made contiguous": _through(lambda y: y.permute(0, 2, 3, 1).contiguous()),
    "in channels last": _through(lambda y: y.to(memory_format=torch.channels_last)),
    "of this type in channels last": _through(_float_in_channels_last),
    "contiguous in channels last": _through(lambda y: y.contiguous(memory_format=torch.channels_last)),
    "a slice of it": _through(lambda y: y.flatten(2)[:, 1:3]),
    "the source is written": _read_later,
    "the input": _of_the_input,
}


def _answered(module: nn.Module, model: nn.Module) -> list[str]:
    """The layouts in which the module answers; wherever it does, it answers as the model."""
    layouts = []
    for layout, lay_out in LAYOUTS.items():
        with torch.no_grad():
            expected = model(lay_out(X))
            try:
                found = module(lay_out(X))
            except ValueError as error:
                if ".contiguous()" not in str(error):
                    raise
                continue
        assert_same(expected, found, 1e-5)
        layouts.append(layout)
    return layouts


@pytest.mark.parametrize("name", few(HELD, "flattened", "made contiguous", "the source is written"))
def test_another_layout_is_refused(name: str) -> None:
    model = randomised(Net(HELD[name], conv=nn.Conv2d(3, 4, 3, padding=1)))
    folded = rk.fold(model, X.clone())
    assert any("takes contiguous inputs" in note for note in folded.notes)
    for module in (folded.module, copy.deepcopy(folded.module), pickle.loads(pickle.dumps(folded.module))):
        assert _answered(module, model) == ["contiguous"]
    # There the call of contiguous() has nothing to do, and the write shows: the comparison finds it.
    nothing_to_do = "made contiguous" in name or "in channels last" in name
    error = rk.NotEquivalent if nothing_to_do else rk.CannotCapture
    words = "not equivalent" if nothing_to_do else "one layout only. Give contiguous tensors"
    with pytest.raises(error, match=words):
        rk.fold(model, LAYOUTS["channels last"](X))


@pytest.mark.diagonal
@pytest.mark.parametrize("merge_siblings", [False, True])
@pytest.mark.parametrize("name", ["flattened", "of this type in channels last", "the source is written"])
def test_a_network_of_two_inputs(name: str, merge_siblings: bool) -> None:
    parts = {"conv": nn.Conv2d(3, 4, 3, padding=1), "other": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4)}
    model = randomised(
        PairNet(lambda s, x, y: HELD[name](s, x).sum() + s.norm(s.other(y)) + s.norm(s.conv(y)), **parts)
    )
    folded = rk.fold(model, (X.clone(), X * 2), merge_siblings=merge_siblings)
    assert folded.folds
    assert "LayoutGuard" not in folded.after
    assert_same(model(X.clone(), X * 3), folded.module(X.clone(), X * 3), 1e-5)
    with pytest.raises(ValueError, match=r"give y\.contiguous\(\)"):
        folded.module(X.clone(), LAYOUTS["transposed"](X))


FREE: dict[str, Callable[..., Any]] = {
    "axes are only split": _through(lambda y: y.reshape(y.shape[0], 2, 2, *y.shape[2:])),
    "nothing of it is read later": lambda s, x: s.conv(x).flatten(1).add_(1),
    "a copy is read": lambda s, x: (lambda y, z: (z.flatten(1).add_(1), y)[1])(s.conv(x), s.conv(x)),
    "of another type": _through(lambda y: y.to(torch.float64, memory_format=torch.channels_last)),
    "a copy in channels last": _through(lambda y: y.to(y.dtype, copy=True, memory_format=LAST)),
    "cloned in channels last": _through(lambda y: y.clone(memory_format=torch.channels_last)),
    "to the type that it has": _through(lambda y: y.to(torch.float32)),
    "nothing is written": lambda s, x: s.conv(x).flatten(1) * 2,
    "made here": lambda s, x: (lambda z: (z.flatten().add_(1), s.conv(x) * z)[1])(torch.zeros(4, 1, 1)),
}


@pytest.mark.parametrize("name", FREE)
def test_where_it_makes_no_difference_every_layout_is_taken(name: str) -> None:
    model = randomised(Net(FREE[name], conv=nn.Conv2d(3, 4, 3, padding=1)))
    folded = rk.fold(model, X)
    assert _answered(folded.module, model) == list(LAYOUTS)
    assert not any("takes contiguous inputs" in note for note in folded.notes)
