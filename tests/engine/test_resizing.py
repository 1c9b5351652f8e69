"""Regions that move values are proven at other sizes than the captured one, odd and even."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

from fixtures import catalogue
from reparamkit.capture.export import capture
from reparamkit.engine import proof
from reparamkit.engine.form import Terms
from reparamkit.engine.layers import Layer, Realisation, realise
from reparamkit.hosts.fx import planned as planning
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, fold, noise, randomised
from tests.slow_share import few


def _tokens(s: Any, x: Tensor) -> Tensor:
    return s.linear(s.norm(x).flatten(2).transpose(1, 2)).relu()


def _windows(s: Any, x: Tensor) -> Tensor:
    """(N, 14, 21, 6) in windows of 7 by 7, and back, as Swin does it."""
    n, h, w, c = x.shape
    cut = s.norm(x).view(n, h // 7, 7, w // 7, 7, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 49, c)
    y = s.linear(cut).relu()
    whole = y.view(n, h // 7, w // 7, 7, 7, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, 4)
    return (whole * s.gain) @ s.matrix


def _heads(s: Any, x: Tensor) -> Tensor:
    """The scale of q, behind a cut; that of the product, behind the product."""
    n, length, c = x.shape
    q, k, v = s.linear(x).reshape(n, length, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
    attention = (q * 0.5) @ k.transpose(-2, -1)
    return attention.softmax(-1) @ v


def _product(s: Any, x: Tensor) -> Tensor:
    n, length, c = x.shape
    q = s.q(x).reshape(n, length, 2, c // 2).transpose(1, 2)
    k = s.k(x.relu()).reshape(n, length, 2, c // 2).transpose(1, 2)
    return ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1)


def _pooled(s: Any, x: Tensor) -> Tensor:
    return s.linear(s.norm(x).mean((2, 3))).relu()


def _merged(s: Any, x: Tensor) -> Tensor:
    """A norm behind which channels are rows, and a strided layer."""
    return s.conv((s.norm(x) * s.gain).permute(0, 3, 1, 2)).relu()


def _piece(s: Any, x: Tensor) -> Tensor:
    """One token apart from the others, as class attention has it."""
    first, rest = s.linear(s.norm(x)).split([1, x.shape[1] - 1], 1)
    return (first * s.gain).relu() + (rest * s.gain).sum(1, keepdim=True)


NETS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[], dict[str, Any]], tuple[int, ...]]] = {
    "tokens": (
        _tokens,
        lambda: {"norm": nn.BatchNorm2d(6), "linear": nn.Linear(6, 5)},
        (2, 6, 7, 7),
    ),
    "windows": (
        _windows,
        lambda: {
            "norm": nn.LayerNorm(6),
            "linear": nn.Linear(6, 4),
            "gain": nn.Parameter(noise(4)),
            "matrix": nn.Parameter(noise(4, 3)),
        },
        (2, 14, 21, 6),
    ),
    "heads": (_heads, lambda: {"linear": nn.Linear(6, 18)}, (2, 7, 6)),
    "product": (_product, lambda: {"q": nn.Linear(6, 6), "k": nn.Linear(6, 6)}, (2, 7, 6)),
    "pooled": (_pooled, lambda: {"norm": nn.BatchNorm2d(6), "linear": nn.Linear(6, 5)}, (2, 6, 7, 7)),
    "merged": (
        _merged,
        lambda: {
            "norm": nn.LayerNorm(6),
            "gain": nn.Parameter(noise(6)),
            "conv": nn.Conv2d(6, 8, 2, 2),
        },
        (2, 8, 8, 6),
    ),
    "piece": (
        _piece,
        lambda: {"norm": nn.LayerNorm(6), "linear": nn.Linear(6, 6), "gain": nn.Parameter(noise(6))},
        (2, 9, 6),
    ),
}


class _Trials:
    """The shapes that inputs of regions had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.regions: list[list[tuple[tuple[int, ...], ...]]] = []
        for name in ("trials", "resized"):
            monkeypatch.setattr(proof, name, self._noted(getattr(proof, name)))

    def _noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.regions.append([])
            for trial in function(*args, **kwargs):
                self.regions[-1].append(tuple(trial.shapes.values()))
                yield trial

        return noted


@pytest.mark.diagonal(5)
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("name", NETS)
def test_odd_and_even_sizes_besides_the_captured_one(
    name: str, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, parts, shape = NETS[name]
    tried = _Trials(monkeypatch)
    done = fold(randomised(Net(function, **parts())), noise(*shape), dynamic="auto" if free else False)
    done.compare(noise(*shape))
    assert done.folds != ()
    assert [f for f in done.folds if f.captured_only] == []
    assert not any("captured size only" in str(f) for f in done.folds)
    for region in tried.regions:
        assert len(set(region)) >= 2
        varying = zip(*(sum(shapes, ()) for shapes in region), strict=True)
        assert any({n % 2 for n in sizes} == {0, 1} for sizes in varying)


@pytest.mark.slow
@pytest.mark.parametrize("name", few(["dbb", "ecb"], "ecb"))
def test_borders_written_slice_by_slice_too(name: str) -> None:
    model, sizes = catalogue.build(name)
    for dynamic in ("auto", False):
        done = fold_program(capture(model, sizes.inputs()["odd"], dynamic=dynamic))
        assert [fold.captured_only for fold in done.folds] == [False]


def test_where_nothing_may_vary_the_finding_says_so() -> None:
    """An axis of one may be broadcast somewhere: it stays."""

    def function(s: Any, x: Tensor) -> Tensor:
        pooled = x.relu().mean((2, 3), keepdim=True)
        return s.linear(s.norm(pooled).flatten(1)).relu()

    for batch in (1, 2):
        net = randomised(Net(function, norm=nn.BatchNorm2d(6), linear=nn.Linear(6, 5)))
        (single,) = fold(net, noise(batch, 6, 4, 4), dynamic=False).folds
        assert single.captured_only == (batch == 1)
        assert ("proven at the captured size only" in str(single)) == (batch == 1)


def test_a_layer_that_is_wrong_at_other_sizes_alone_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stride of two leaves the last column of an even size out, whatever is padded behind it."""

    def function(s: Any, x: Tensor) -> Tensor:
        return s.conv((x * s.gain).permute(0, 3, 1, 2)).relu()

    def net() -> nn.Module:
        return randomised(
            Net(function, gain=nn.Parameter(noise(6)), conv=nn.Conv2d(6, 4, 3, stride=2, padding=1))
        )

    def wrong(terms: Terms, *options: Any, **named: Any) -> Realisation:
        made = realise(terms, *options, **named)
        (layer,) = made.layers
        module: Any = copy.deepcopy(layer.module)
        module.padding = (0, 0)
        return replace(made, layers=(Layer(layer.source, module, (1, 0, 1, 0)),))

    x = noise(2, 8, 8, 6)
    assert len(fold(net(), x, dynamic=False).folds) == 1
    monkeypatch.setattr(planning, "realise", wrong)
    done = fold(net(), x, dynamic=False)
    assert done.folds == ()
    assert "output shape" in done.reasons() or "check failed" in done.reasons()
