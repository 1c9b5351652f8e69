"""What the caller is in the middle of, and what other threads do, changes nothing of a result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import reparamkit as rk
from reparamkit.capture import limit
from reparamkit.support.surroundings import undisturbed
from tests.nets import noise, randomised


class Branches(nn.Module):
    """Makes a tensor of its own, whose type and device the surroundings could change."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm, self.narrow = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(3, 4, 1),
        )
        self.grown = parametrizations.weight_norm(nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.wide(x)) + self.narrow(x)
        return self.grown(y).relu() * torch.full((4, 1, 1), 0.5)


class Raising(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was seen")


class Doubling(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * 2 if func is torch.ops.aten.convolution.default else result


@contextmanager
def _default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _stale_cache(model: nn.Module) -> Iterator[None]:
    """Within `parametrize.cached()`, with a weight in the cache that is not the model's any more."""
    with parametrize.cached():
        model.get_submodule("grown").weight  # noqa: B018 - reading it is what fills the cache
        with torch.no_grad():
            model.get_parameter("grown.parametrizations.weight.original0").mul_(2)
        yield


SURROUNDINGS: dict[str, Callable[[nn.Module], AbstractContextManager[Any]]] = {
    "inference mode": lambda model: torch.inference_mode(),
    "no gradients": lambda model: torch.no_grad(),
    "autocast": lambda model: torch.autocast("cpu"),
    "autocast to half": lambda model: torch.autocast("cpu", torch.float16),
    "meta device": lambda model: torch.device("meta"),
    "default device": lambda model: _default_device(),
    "function mode": lambda model: Raising(),
    "dispatch mode": lambda model: Doubling(),
    "cached weights": _stale_cache,
}


@pytest.mark.diagonal(3)
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_fold_is_what_it_is_elsewhere(name: str, tmp_path: Path) -> None:
    model, x, z = randomised(Branches()), noise(2, 3, 6, 5, dtype=torch.float32), torch.ones(1, 3, 4, 7)
    with SURROUNDINGS[name](model):
        inside = rk.fold(model, x)
        found = rk.inspect(model, x)
        verdict = rk.check(model, inside.module, x)
        inside.save(tmp_path / "net.pt2")
    outside = rk.fold(model, x)
    assert (str(inside), str(found).splitlines()) == (str(outside), str(outside).splitlines()[:-1])
    assert verdict.passed
    states = inside.module.state_dict(), outside.module.state_dict()
    assert states[0].keys() == states[1].keys()
    for one, other in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(one, other)
        assert (one.dtype, one.device, one.is_inference()) == (other.dtype, other.device, False)
    inside.module(z.requires_grad_()).sum().backward()
    assert z.grad is not None
    assert all(p.grad is not None for p in inside.module.parameters())


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_surroundings_are_there_again_afterwards(name: str) -> None:
    def state() -> tuple[Any, ...]:
        modes = (
            torch._C._len_torch_function_stack(),
            len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
        )
        grad = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        return (*modes, *grad, torch.get_autocast_dtype("cpu"), parametrize._cache_enabled)

    with SURROUNDINGS[name](randomised(Branches())):
        before = state()
        with undisturbed():
            torch.zeros(3).add_(1)
        assert state() == before
        with pytest.raises(KeyError), undisturbed():
            raise KeyError
        assert state() == before


def test_a_model_and_an_example_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = randomised(Branches()), noise(2, 3, 6, 5, dtype=torch.float32)
    folded = rk.fold(model, x)
    assert "inference mode" in folded.notes[0]
    assert not any(p.is_inference() for p in folded.module.parameters())
    assert all(p.is_inference() for p in model.parameters())
    folded.module(torch.ones(2, 3, 6, 5)).sum().backward()


def test_folds_from_several_threads_at_once(tmp_path: Path) -> None:
    model, x = randomised(Branches()), noise(2, 3, 6, 5, dtype=torch.float32)
    alone = rk.fold(model, x).module.state_dict()
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        try:
            folded = rk.fold(model, x, seconds=30)
            folded.save(tmp_path / f"{number}.pt2")
            passed = rk.check(model, folded.module, x).passed and bool(rk.inspect(model, x).folds)
            results[number] = folded.sizes, passed, folded.module.state_dict()
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(results) == [0, 1, 2, 3], "a thread never came back"
    for sizes, passed, weights in results.values():
        assert (sizes, passed) == ("free batch and spatial sizes", True)
        assert all(torch.equal(weights[name], value) for name, value in alone.items())


def test_waiting_for_another_thread_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of an attempt starts when it is the thread's turn."""
    started: list[float] = []
    limited = limit.limited

    @contextmanager
    def noted(seconds: float | None) -> Iterator[None]:
        started.append(time.monotonic())
        with limited(seconds):
            yield

    monkeypatch.setattr("reparamkit.capture.export.limited", noted)
    model, x = randomised(Branches()), noise(2, 3, 6, 5, dtype=torch.float32)
    results: list[rk.Folded] = []
    with undisturbed():
        thread = threading.Thread(target=lambda: results.append(rk.fold(model, x, seconds=60)))
        thread.start()
        time.sleep(0.3)
        assert started == []
        free = time.monotonic()
    thread.join()
    assert started[0] >= free
    assert results[0].sizes == "free batch and spatial sizes"


def test_a_network_that_folds_another_while_it_is_folded() -> None:
    """The lock lets the thread that has it in again."""
    inner, x = randomised(Branches()), noise(2, 3, 6, 5, dtype=torch.float32)

    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 4, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            rk.check(inner, inner, torch.ones(1, 3, 4, 4))
            return self.conv(x)

    assert rk.check(randomised(Folding()), randomised(Folding()), x).passed
