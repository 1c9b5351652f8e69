"""What is put around a model: taken off with a note, or named with what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import reparamkit as rk
from reparamkit.compare.compare import compare
from tests.nets import noise, randomised

X = noise(2, 3, 6, 5, dtype=torch.float32)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm, self.narrow = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(3, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.wide(x)) + self.narrow(x)


class Around(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head, self.norm = trunk, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.head(self.trunk(x)))


def compiled(model: nn.Module) -> nn.Module:
    wrapped = torch.compile(model, backend="eager")
    assert isinstance(wrapped, nn.Module)
    return wrapped


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], list[str]]] = {
    "compile": (compiled, ["torch.compile"]),
    "DataParallel": (nn.DataParallel, ["DataParallel"]),
    "AveragedModel": (AveragedModel, ["AveragedModel"]),
    "an average that moves": (
        lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        ["AveragedModel"],
    ),
    "several": (
        lambda m: compiled(nn.DataParallel(AveragedModel(m))),
        ["torch.compile", "DataParallel", "AveragedModel"],
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_model_inside_is_folded(name: str) -> None:
    wrap, inside = WRAPPERS[name]
    model = randomised(Branches())
    folded = rk.fold(wrap(copy.deepcopy(model)).eval(), X)
    assert folded.sizes == "free batch and spatial sizes"
    assert [note for note in folded.notes if "inside" in note] == [
        f"the model inside {one} was taken" for one in inside
    ]
    plain = rk.fold(model, X)
    assert folded.module.state_dict().keys() == plain.module.state_dict().keys()
    assert rk.check(wrap(copy.deepcopy(model)).eval(), folded.module, X).passed
    assert compare(wrap(model).eval(), folded.module, inputs=X).comparison.status == "same"


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_inside_a_model(name: str) -> None:
    model = randomised(Around(Branches()))
    wrapped = copy.deepcopy(model)
    wrapped.trunk = WRAPPERS[name][0](wrapped.trunk).eval()
    folded = rk.fold(wrapped, X)
    assert "batch_norm" not in folded.after
    assert rk.check(model, folded.module, X).passed


def test_a_model_that_was_compiled_in_place() -> None:
    model = randomised(Branches())
    model.compile(backend="eager")
    with torch.no_grad():
        model(X)
    assert rk.fold(model, X).sizes == "free batch and spatial sizes"


class Changed(nn.DataParallel[nn.Module]):
    """A wrapper of the user's own: what it computes is not what is inside."""

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) * 2


def test_a_wrapper_that_computes_something_is_no_wrapper() -> None:
    model = randomised(Branches())
    folded = rk.fold(Changed(model).eval(), X)
    with torch.no_grad():
        assert torch.allclose(folded.module(X), model(X) * 2, atol=1e-5)


class FullyShardedDataParallel(nn.Module):
    """By name alone: the real one asks for a group of processes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@pytest.mark.parametrize("around", [False, True])
def test_sharded_weights_are_named(around: bool) -> None:
    model = FullyShardedDataParallel(Branches()).eval()
    with pytest.raises(rk.UnusableInput, match=r"spread over several processes .*FullySharded.*state dict"):
        rk.fold(Around(model).eval() if around else model, X)


def _fake() -> nn.Module:
    with FakeTensorMode():
        return Branches().eval()


NO_VALUES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "meta": (
        lambda: Branches().eval().to("meta"),
        "'wide.weight' has a shape and no values .*'meta'.*to_empty",
    ),
    "one layer": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, device="meta")).eval(),
        "'1.weight'",
    ),
    "fake": (_fake, "'wide.weight' has a shape and no values .*a fake tensor"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 1)).eval(),
        "'0.weight' has no shape yet: run the model once",
    ),
}


@pytest.mark.parametrize("name", NO_VALUES)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_weights_without_values_are_named(name: str, subtests: pytest.Subtests) -> None:
    make, words = NO_VALUES[name]
    model = randomised(Branches())
    for call in (rk.fold, rk.inspect, lambda m, x: rk.check(m, model, x), lambda m, x: rk.check(model, m, x)):
        with subtests.test(str(call)), pytest.raises(rk.UnusableInput, match=words):
            call(make(), X)
    assert compare(model, make(), inputs=X).comparison.status == "cannot tell"


def test_an_example_without_values_is_named() -> None:
    with pytest.raises(rk.UnusableInput, match=r"input 0 has a shape and no values .*'meta'"):
        rk.fold(randomised(Branches()), X.to("meta"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, X)], ids=["script", "trace"])
def test_frozen_torchscript(make: Callable[[nn.Module], torch.jit.ScriptModule]) -> None:
    model = randomised(Branches())
    frozen = torch.jit.freeze(make(model))
    folded = rk.fold(frozen, X)
    assert len(folded.folds) == 1
    assert rk.check(model, folded.module, X).passed
    assert rk.check(frozen, folded.module, X).passed
