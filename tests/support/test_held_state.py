"""What a model holds beside its weights is as it was, whatever its forward does to it."""

from __future__ import annotations

import array
import collections
import functools
import pickle
import random
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.compare import compare
from reparamkit.support.isolation import attributes_kept
from tests.nets import randomised


@dataclass
class Inner:
    calls: int = 0
    seen: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    pair: tuple[Inner, Inner] = field(default_factory=lambda: (Inner(), Inner()))


class Slotted:
    __slots__ = ("__dict__", "calls", "later")

    def __init__(self) -> None:
        self.calls = 0


class Counting:
    total: ClassVar[int] = 0
    log: ClassVar[list[int]] = []

    def count(self) -> None:
        type(self).total += 1
        self.log.append(1)


class Base:
    shared: ClassVar[dict[str, int]] = {"calls": 0}


class Derived(Base):
    pass


def _closure() -> tuple[Callable[[], int], Callable[[], None]]:
    calls, seen = 0, []

    def step() -> None:
        nonlocal calls
        calls += 1
        seen.append(calls)

    return lambda: calls + 100 * len(seen), step


def _increment(item: Any) -> Any:
    item.calls += 1
    return item


def _array_of_objects() -> Any:
    held = np.empty(2, dtype=object)
    held[0], held[1] = [0], Inner()
    return held


def _exchange(tensor: Tensor) -> None:
    tensor.data = torch.ones(7)


# name -> (what the model holds, what its forward does to it, what is looked at)
HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "namespace": (lambda: types.SimpleNamespace(calls=0), _increment, lambda s: s.calls),
    "namespace in a namespace": (
        lambda: types.SimpleNamespace(deep=types.SimpleNamespace(calls=[0])),
        lambda s: s.deep.calls.append(1),
        lambda s: list(s.deep.calls),
    ),
    "new attribute": (types.SimpleNamespace, lambda s: setattr(s, "last", 1), lambda s: dict(vars(s))),
    "dropped attribute": (
        lambda: types.SimpleNamespace(calls=0),
        lambda s: vars(s).pop("calls", None),
        lambda s: dict(vars(s)),
    ),
    "frozen dataclass": (
        Outer,
        lambda s: (_increment(s.inner), s.pair[1].seen.append(1)),
        lambda s: (s.inner.calls, len(s.pair[1].seen)),
    ),
    "slots": (Slotted, _increment, lambda s: s.calls),
    "slot that was empty": (Slotted, lambda s: setattr(s, "later", 1), lambda s: hasattr(s, "later")),
    "dict beside slots": (Slotted, lambda s: setattr(s, "free", 1), lambda s: dict(vars(s))),
    "class attributes": (Counting, lambda s: s.count(), lambda s: (s.total, len(s.log))),
    "class attribute of a base": (
        Derived,
        lambda s: s.shared.update(calls=s.shared["calls"] + 1),
        lambda s: dict(s.shared),
    ),
    "class attribute that is new": (
        Derived,
        lambda s: setattr(type(s), "fresh", 1),
        lambda s: hasattr(s, "fresh"),
    ),
    "defaultdict": (lambda: collections.defaultdict(int), lambda s: s["new"], len),
    "Counter": (lambda: collections.Counter("aab"), lambda s: s.update("bc"), dict),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=1, b=2),
        lambda s: s.move_to_end(next(iter(s))),
        lambda s: list(s.items()),
    ),
    "deque": (lambda: collections.deque([1, 2, 3], maxlen=3), lambda s: s.append(9), list),
    "set": (lambda: {1}, lambda s: s.add(len(s) + 1), sorted),
    "bytearray": (lambda: bytearray(b"ab"), lambda s: s.append(1), bytes),
    "array.array": (lambda: array.array("d", [0.0]), lambda s: s.append(1.0), list),
    "numpy array": (lambda: np.zeros(2), lambda s: s.__iadd__(1), lambda s: s.tolist()),
    "numpy array of another shape": (
        lambda: np.zeros(2),
        lambda s: s.resize(s.size + 1, refcheck=False),
        lambda s: s.tolist(),
    ),
    "numpy array of objects": (
        _array_of_objects,
        lambda s: (s[0].append(1), _increment(s[1])),
        lambda s: (len(s[0]), s[1].calls),
    ),
    "view of a numpy array": (
        lambda: np.zeros((2, 3)),
        lambda s: s[0].__iadd__(1),
        lambda s: s.tolist(),
    ),
    "torch generator": (
        lambda: torch.Generator().manual_seed(1),
        lambda s: torch.rand(3, generator=s),
        lambda s: s.get_state().tolist(),
    ),
    "numpy generator": (
        lambda: np.random.default_rng(1),
        lambda s: s.random(3),
        lambda s: str(s.bit_generator.state),
    ),
    "numpy RandomState": (
        lambda: np.random.RandomState(1),
        lambda s: s.rand(3),
        lambda s: pickle.dumps(s.get_state()),
    ),
    "random.Random": (lambda: random.Random(1), lambda s: s.random(), lambda s: s.getstate()),
    "closure": (_closure, lambda s: s[1](), lambda s: s[0]()),
    "partial": (
        lambda: functools.partial(_increment, Inner()),
        lambda s: s(),
        lambda s: s.args[0].calls,
    ),
    "bound method": (lambda: Counting().count, lambda s: s(), lambda s: s.__self__.total),
    "tensor in an object": (
        lambda: types.SimpleNamespace(t=torch.zeros(2)),
        lambda s: s.t.add_(1),
        lambda s: s.t.tolist(),
    ),
    "data of a tensor": (lambda: [torch.zeros(2)], lambda s: _exchange(s[0]), lambda s: s[0].tolist()),
}


class Holding(nn.Module):
    """A network whose forward changes what it holds, in a way that does not show in its output."""

    def __init__(self, held: Any, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.held, self.change = held, change

    def forward(self, x: Tensor) -> Tensor:
        self.change(self.held)
        return self.norm(self.conv(x))


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_is_put_back(name: str) -> None:
    make, change, look = HELD[name]
    held = make()
    model, before = Holding(held, change), look(held)
    with attributes_kept(model):
        change(held)
        assert look(held) != before
        change(held)
    assert look(held) == before
    assert model.held is held
    with attributes_kept(model):
        pass
    assert look(held) == before


class Everything(Holding):
    """All of them at once, where torch.export does not mind."""

    left_out: ClassVar[set[str]] = {"torch generator", "data of a tensor", "tensor in an object"}

    def __init__(self) -> None:
        names = [name for name in HELD if name not in self.left_out]
        changes = {name: HELD[name][1] for name in names}
        super().__init__(
            {name: HELD[name][0]() for name in names},
            lambda held: [changes[name](item) for name, item in held.items()],
        )

    def looked_at(self) -> dict[str, Any]:
        return {name: HELD[name][2](item) for name, item in self.held.items()}


def test_every_call_leaves_what_is_held_as_it_was(tmp_path: Path) -> None:
    model, other, x = randomised(Everything()), randomised(Everything()), torch.randn(2, 3, 8, 8)
    before = model.looked_at()
    folded = rk.fold(model, x)
    assert model.looked_at() == before
    folded.save(tmp_path / "net.pt2")
    assert model.looked_at() == before
    rk.inspect(model, x)
    assert model.looked_at() == before
    assert rk.check(model, other, x).passed
    assert compare(model, other, inputs=x).comparison.status == "same"
    assert (model.looked_at(), other.looked_at()) == (before, before)


def test_a_weight_whose_data_was_exchanged_gets_it_back() -> None:
    model = nn.Conv2d(3, 4, 3)
    weight, values = model.weight, model.weight.detach().clone()
    with attributes_kept(model):
        model.weight.data = model.weight.data * 2
    assert model.weight is weight
    assert torch.equal(model.weight, values)


def test_what_a_hook_has_collected() -> None:
    model, outputs = Holding(None, lambda held: None), []
    model.conv.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    rk.fold(randomised(model), torch.randn(2, 3, 8, 8))
    assert outputs == []
