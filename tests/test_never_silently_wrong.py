"""What is answered at sizes that the capture did not see is what the original answers, or it is refused.

Networks that look at their sizes, in ways that a capture cannot see or could misread, at sizes of one and
zero, equal sides, and around every condition: as modules, as `.pt2` and as ONNX.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.forwards_by_size import EVERY, EXAMPLE, Forward, body, network
from tests.nets import Net, PairNet, randomised
from tests.right_or_refused import (
    FLOAT32,
    REFUSED,
    SAME,
    fixed_axes,
    in_float32,
    maps,
    onnx_file,
    pt2_file,
    told,
    values,
)

LATER = {
    *("more than one sample", "not a flat map", "both sides", "some size", "how many sizes", "none at all"),
    *("its first size", "exchanged", "by hand", "and given back", "a vector", "two of them", "a row on all"),
    *("twice as high", "one row more", "as many samples as rows", "by its area", "two where square"),
    *(
        "another type",
        "sizes as numbers",
        "its rank",
        "in place",
        "after a product",
        "as many channels as rows",
    ),
    *("three of five columns", "one sample of an odd width", "booleans", "by half", "a full tensor"),
}
"""Tried in the long run only."""
DEFAULT = [
    pytest.param(find, name, marks=[pytest.mark.slow] if name in LATER else []) for find, name in EVERY
]


@pytest.mark.diagonal(24)
@pytest.mark.parametrize(("find", "name"), DEFAULT)
def test_a_module_is_right_or_refuses(find: str, name: str) -> None:
    model = network(find, name)
    original = copy.deepcopy(model)
    folded = rk.fold(model, values(*EXAMPLE))
    answers = {shape: told(original, folded.module, values(*shape)) for shape in maps()}
    assert answers[EXAMPLE] == SAME
    if name != "its length":  # torch.export takes it for a constant, and the sides are free
        assert SAME in {answer for shape, answer in answers.items() if shape[0] != 2}
    assert SAME in {answer for shape, answer in answers.items() if shape[2:] != EXAMPLE[2:]}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (2, 3, 6, 6), (1, 3, 6, 6), (2, 3, 1, 9)])
@pytest.mark.parametrize(("find", "name"), EVERY)
def test_whatever_the_example_is(find: str, name: str, shape: tuple[int, ...]) -> None:
    model = network(find, name)
    original = copy.deepcopy(model)
    folded = rk.fold(model, values(*shape))
    answers = {each: told(original, folded.module, values(*each)) for each in [*maps(), shape]}
    assert answers[shape] == SAME


@dataclasses.dataclass
class _Pair:
    first: Tensor
    second: Tensor | None = None


class _Stars(PairNet):
    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


class _Keywords(PairNet):
    def forward(self, x: Tensor, **others: Tensor) -> Any:  # type: ignore[override]
        return self.function(self, x, others["y"])


class _Starred(PairNet):
    def forward(self, x: Tensor, *rest: Tensor) -> Any:
        return self.function(self, x, rest[0])


class _Optional(PairNet):
    def forward(self, x: Tensor, none: Any = None, y: Any = None) -> Any:  # type: ignore[override]
        assert none is None
        return self.function(self, x, y)


class _OfOne(PairNet):
    def __init__(self, function: Forward, take: Callable[[Any], tuple[Tensor, Tensor]], **parts: Any) -> None:
        super().__init__(function, **parts)
        self.take = take

    def forward(self, given: Any) -> Any:  # type: ignore[override]
        return self.function(self, *self.take(given))


SIGNATURES: dict[str, tuple[Callable[..., nn.Module], Callable[[Tensor, Tensor], Any]]] = {  # C10
    "args": (_Stars, lambda x, y: (x, y)),
    "kwargs": (_Keywords, lambda x, y: {"x": x, "y": y}),
    "one and args": (_Starred, lambda x, y: (x, y)),
    "an optional one left out": (_Optional, lambda x, y: {"x": x, "y": y}),
    "a None in its place": (_Optional, lambda x, y: (x, None, y)),
    "a dict": (partial(_OfOne, take=lambda d: (d["x"], d["y"])), lambda x, y: ({"x": x, "y": y},)),
    "a list": (partial(_OfOne, take=lambda d: (d[0], d[1])), lambda x, y: ([x, y],)),
    "nested": (partial(_OfOne, take=lambda d: (d[0], d[1]["y"][0])), lambda x, y: ([x, {"y": (y, 3)}],)),
    "a dataclass": (partial(_OfOne, take=lambda d: (d.first, d.second)), lambda x, y: (_Pair(x, y),)),
}


def _of_both(s: Any, x: Tensor, y: Tensor) -> Tensor:
    """A branch on the batch that both share, and on the height of the second."""
    z = body(s, x).mean((2, 3)) + y.mean((2, 3))
    return z * (3 if x.shape[0] == 1 else 1) * (5 if y.shape[2] == 1 else 1)


@pytest.mark.parametrize("name", SIGNATURES)
def test_inputs_of_any_form_are_free_and_right(name: str) -> None:
    kind, given = SIGNATURES[name]
    model = randomised(kind(_of_both, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4))).double()
    original = copy.deepcopy(model)

    def of(n: int, h: int, m: int, v: int) -> Any:
        return given(values(n, 3, h, 6), values(m, 4, v, 7))

    folded = rk.fold(model, of(2, 5, 2, 4))
    assert folded.sizes == "free batch and spatial sizes"
    right, refused = [(2, 5, 2, 4), (3, 5, 3, 4), (3, 1, 3, 2)], [(1, 5, 1, 4), (2, 5, 2, 1), (1, 1, 1, 1)]
    broadcast = [(2, 5, 1, 4), (1, 5, 2, 4)]
    answers = {sizes: told(original, folded.module, of(*sizes)) for sizes in (*right, *refused, *broadcast)}
    assert [answers[sizes] for sizes in right] == [SAME] * 3
    assert [answers[sizes] for sizes in refused] == [REFUSED] * 3


TIED: dict[str, Forward] = {
    "added": lambda s, x, y: s.conv(x) + y * (2 if y.shape[0] == 1 else 1),
    "one for all": lambda s, x, y: s.conv(x) * y.mean((2, 3), keepdim=True),
    "its height is the other's batch": lambda s, x, y: s.conv(x).mean((1, 3)) @ y.mean((2, 3)),
    "the same or not": lambda s, x, y: s.conv(x).sum() * (2 if x.shape == y.shape else 1) + y.sum(),
}


@pytest.mark.parametrize("name", TIED)
def test_sizes_that_two_inputs_share(name: str) -> None:
    model = randomised(PairNet(TIED[name], conv=nn.Conv2d(3, 4, 3, padding=1))).double()
    original = copy.deepcopy(model)
    first, second = ((2, 3, 5, 6), (5, 4, 5, 6)) if "batch" in name else ((2, 3, 5, 6), (2, 4, 5, 6))
    folded = rk.fold(model, (values(*first), values(*second)))
    sizes = list(itertools.product((1, 2, 5), (3, 4), (1, 5), (1, 6)))
    answers = [
        told(original, folded.module, (values(*one), values(*other)))
        for one, other in itertools.product([s for s in sizes if s[1] == 3], [s for s in sizes if s[1] == 4])
    ]
    assert answers.count(SAME) > 1


MODES: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[Tensor], Tensor], str]] = {  # S5
    "grad mode": (
        lambda s, x: torch.is_grad_enabled(),
        lambda x: x,
        "when gradients are recorded",
    ),
    "requires_grad": (
        lambda s, x: x.requires_grad,
        lambda x: x.clone().requires_grad_(),
        "for inputs that require gradients",
    ),
    "channels last": (
        lambda s, x: not x.is_contiguous(),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        "for inputs in channels-last memory",
    ),
    "a part of a larger one": (
        lambda s, x: x.storage_offset() != 0,
        lambda x: torch.cat([x, x])[2:],
        "for inputs that are a part of larger ones",
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_another_mode_is_right_or_told(name: str) -> None:
    odd, enter, words = MODES[name]
    parts = {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
    model = randomised(Net(lambda s, x: body(s, x) * (2 if odd(s, x) else 1), **parts)).double()
    folded = rk.fold(model, values(*EXAMPLE))
    other = enter(values(*EXAMPLE))
    differs = not torch.allclose(folded.module(other), model(other))
    assert differs
    assert any(words in note for note in folded.notes)


class _ExportsOtherwise(nn.Module):
    """Not what runs is captured."""

    def __init__(self, odd: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.odd = nn.Conv2d(3, 4, 3, padding=1), odd

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y * 2 if self.odd(x) else y


EXPORTED: dict[str, Callable[[Tensor], Any]] = {  # S7
    "is_exporting": lambda x: torch.compiler.is_exporting(),
    "is_compiling": lambda x: torch.compiler.is_compiling(),
    "the kind of tensor": lambda x: type(x) is not Tensor,
    "no elements found": lambda x: x.detach()[0, 0].to_sparse()._nnz() == 0,
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_captured_wrongly_is_not_handed_out(name: str, verify: bool) -> None:
    model = randomised(_ExportsOtherwise(EXPORTED[name]))
    with pytest.raises((rk.NotEquivalent, rk.CannotCapture)):
        rk.fold(model, values(*EXAMPLE, dtype=torch.float32), verify=verify)


SINGLE = [
    ("ones", "one sample"),
    ("ones", "another type"),
    ("ones", "a write"),
    ("conjunctions", "one sample of a wide map"),
    ("squeezed", "a careless head"),
    ("squeezed", "in place"),
    ("small", "a constant"),
]


@pytest.mark.parametrize(("find", "name"), SINGLE)
def test_an_example_of_one_sample_keeps_that_batch(find: str, name: str) -> None:
    model = network(find, name)
    original = copy.deepcopy(model)
    folded = rk.fold(model, values(1, *EXAMPLE[1:]))
    answers = {shape: told(original, folded.module, values(*shape)) for shape in maps()}
    assert answers[1, *EXAMPLE[1:]] == SAME
    if (find, name) != ("squeezed", "a careless head"):  # which does the same on any number of axes
        assert {answers[shape] for shape in answers if shape[0] > 1} == {REFUSED}
        assert any("batch" in note for note in folded.notes)


FILES = [
    ("conjunctions", "one sample of a wide map"),
    ("conjunctions", "three by five"),
    ("squeezed", "a careless head"),
    ("equal", "turned where square"),
    ("small", "indices"),
]


def _assert_files_are_right(find: str, name: str, folder: Path) -> None:
    model = network(find, name)
    folded = rk.fold(copy.deepcopy(model).float(), values(*EXAMPLE, dtype=torch.float32))
    pt2, onnx = folded.save(folder / "net.pt2", folder / "net.onnx")
    structure = partial(model, values(*EXAMPLE))
    candidates = {
        "pt2": in_float32(pt2_file(pt2.path)),
        "onnx": in_float32(onnx_file(onnx.path, structure)),
    }
    for kind, candidate in candidates.items():
        answers = {shape: told(model, candidate, values(*shape), FLOAT32) for shape in maps()}
        assert answers[EXAMPLE] == SAME, kind
    free_in_the_module = {
        symbol for axes in folded.lowering.program.axes.values() for symbol in axes.values()
    }
    free_in_the_file = {size for size in fixed_axes(onnx.path) if isinstance(size, str)}
    if len(free_in_the_file) < len(free_in_the_module):
        assert any("is fixed" in note or "free" in note for note in onnx.notes)


@pytest.mark.parametrize(("find", "name"), FILES)
def test_files_are_right_or_refuse(find: str, name: str, tmp_path: Path) -> None:
    _assert_files_are_right(find, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("find", "name"), [each for each in EVERY if each not in FILES])
def test_all_files_are_right_or_refuse(find: str, name: str, tmp_path: Path) -> None:
    _assert_files_are_right(find, name, tmp_path)
