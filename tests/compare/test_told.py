"""`fold`, `save` and `check` give one answer for one pair, "cannot tell" included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reparamkit as rk
from reparamkit.compare.compare import compare
from reparamkit.compare.float64.reference import Reference
from reparamkit.runners.base import NamedTensors
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from tests.compare.nets import Lambda, randomised
from tests.slow_share import few

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def _deep(layers: int) -> nn.Module:
    """So deep that nothing of the input is left: each layer shrinks it, and the norms' biases stay."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
    for _ in range(layers):
        parts += [nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    made = nn.Sequential(*parts)
    for part in made:
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 0.01)
    return randomised(made)


class _Foldable(nn.Module):
    """A convolution with a norm, and what `function` makes of it."""

    def __init__(self, function: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.function = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), function
        randomised(self)

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self.norm(self.conv(x)))


UNTOLD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "deep": (lambda: _deep(8), "does not depend on the input"),
    "constant": (lambda: _Foldable(lambda y: y * 0.0 + 1.0), "does not depend on the input"),
    "saturated": (lambda: _Foldable(lambda y: (y * 1e9).sigmoid()), "is saturated"),
    "noisy": (lambda: _Foldable(lambda y: (y * 1e12).sin()), "so noisy"),
    "not a number": (lambda: _Foldable(lambda y: y.sqrt() - 1e9 - y.log() * float("nan")), "is NaN"),
    "one of two": (lambda: _Foldable(lambda y: (y, (y * 1e12).sin())), "so noisy"),
}


@pytest.mark.parametrize("why", few(UNTOLD, "constant", "not a number"))
def test_one_answer_for_one_pair(why: str, tmp_path: Path) -> None:
    make, words = UNTOLD[why]
    original = make()
    result = rk.fold(original, IMAGE, dynamic=False)
    assert result.folds
    verdict = result.equivalence
    assert verdict is not None
    assert (verdict.passed, verdict.differs) == (False, False)
    assert words in verdict.untold
    assert verdict.summary().startswith("cannot tell: ")
    assert "cannot tell" in str(result)
    for name in ("n.pt2", "n.onnx", "n.pt"):
        with pytest.raises(rk.UnusableInput, match=r"was not written.*cannot be told.*--allow-untold"):
            result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    found = compare(original, result.module, inputs=IMAGE).comparison
    assert found.status == "cannot tell"
    assert words in found.reason
    with pytest.raises(rk.UnusableInput, match=r"cannot tell whether the two are the same.*" + words):
        rk.check(original, result.module, IMAGE)


def test_untold_files_are_written_where_that_is_allowed(tmp_path: Path) -> None:
    result = rk.fold(_Foldable(lambda y: (y * 1e9).sigmoid()), IMAGE, dynamic=False)
    saved = result.save(tmp_path / "n.onnx", tmp_path / "n.pt2", tmp_path / "n.pt", allow_untold=True)
    assert [file.path.exists() for file in saved] == [True] * 3
    assert all("is saturated" in file.equivalence.untold for file in saved)


def test_a_wrong_file_is_not_written_even_then(tmp_path: Path) -> None:
    original = _Foldable(lambda y: y)
    result = rk.fold(original, IMAGE, dynamic=False)
    with torch.no_grad():
        next(part for part in result.module.modules() if isinstance(part, nn.Conv2d)).weight[0] *= 1.1
    with pytest.raises(rk.NotEquivalent):
        result.save(tmp_path / "n.onnx", allow_untold=True)
    assert not list(tmp_path.iterdir())


def test_where_the_usual_probes_show_nothing_more_are_tried() -> None:
    """Saturated but for tiny values, which `check` tries at once, and a fold where it has to."""
    function = Lambda(
        lambda self, x: (self.conv(x - 0.0) * 1e4 - self.conv.bias.view(1, 4, 1, 1) * 1e4).tanh()
    )
    reference = Reference(function, (IMAGE,))
    before = len(reference.records)
    assert reference.judge(copy.deepcopy(function)).passed == (
        compare(function, copy.deepcopy(function), inputs=IMAGE).comparison.passed
    )
    assert len(reference.records) >= before


def test_an_output_without_evidence_beside_one_with_it_is_told() -> None:
    result = rk.fold(_Foldable(lambda y: (y, torch.ones(3))), IMAGE, dynamic=False)
    assert result.equivalence is not None
    assert result.equivalence.passed
    assert result.equivalence.blind == {"1": "does not depend on the input: no probe changes it"}


class _OneByOne(nn.Module):
    """Folds, and takes every size from one on; a stride inside makes torch.export ask about some of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 5, 3, padding=1)
        randomised(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.conv(x)).relu()).mean((2, 3))


def test_sizes_of_one_are_tried_in_the_module_and_its_files(tmp_path: Path) -> None:
    result = rk.fold(_OneByOne(), IMAGE)
    assert result.equivalence is not None
    assert result.equivalence.passed
    tried = {entry.probe.partition(" (")[0] for entry in result.equivalence.outputs}
    ones = {"batch of one", "height of one", "width of one", "sizes of one", "equal sizes"}
    assert ones <= tried
    onnx, pt2 = result.save(tmp_path / "n.onnx", tmp_path / "n.pt2")
    assert ones <= {entry.probe.partition(" (")[0] for entry in onnx.equivalence.outputs}
    assert ones <= {entry.probe.partition(" (")[0] for entry in pt2.equivalence.outputs}
    assert not [note for note in pt2.notes if note.startswith("torch.export's own guards refuse")]
    assert pt2.equivalence.passed


def test_a_module_that_is_wrong_at_a_size_of_one_is_refused() -> None:
    result = rk.fold(_OneByOne(), IMAGE)
    graph = result.module

    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = graph(x)
            return y * 1.01 if x.shape[2] == 1 else y

    verdict = result.network.reference.judge(Wrong().eval())
    assert verdict.differs
    assert "of one (" in verdict.reason


@pytest.mark.slow
@pytest.mark.diagonal(1)
@pytest.mark.parametrize(("wrong_at", "fewer"), [((3, 1), True), ((16, 16), False)])
def test_a_file_that_is_wrong_at_other_sizes_only_may_do_with_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_at: tuple[int, int], fewer: bool
) -> None:
    """A file that answers otherwise at a height of one gets fixed sizes; one that is wrong is refused."""
    run = OnnxRuntimeRunner.run

    def spoilt(
        self: OnnxRuntimeRunner, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]
    ) -> NamedTensors:
        found = run(self, args, kwargs)
        here = (args[0].shape[0], args[0].shape[2]) == wrong_at or args[0].shape[2] == wrong_at[1] == 16
        return [(name, values * 1.1 if here else values) for name, values in found]

    monkeypatch.setattr(OnnxRuntimeRunner, "run", spoilt)
    result = rk.fold(_OneByOne(), IMAGE)
    if not fewer:
        with pytest.raises(rk.NotEquivalent):
            result.save(tmp_path / "n.onnx")
        return
    (saved,) = result.save(tmp_path / "n.onnx")
    assert saved.notes[0].startswith("the batch size alone is free, because with more of them free")
    assert "of one (" in saved.notes[0]
