"""Probes on which only rounding differs are set aside, and mistakes are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import reparamkit as rk
from reparamkit.compare.check import check
from reparamkit.compare.compare import compare
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.run import Run
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import NotEquivalent
from tests.compare.comparing import run
from tests.compare.deciding import IMAGE, KINDS, deciding
from tests.compare.nets import Lambda

FEW = [("attention", 41), ("attention", 66), ("detector", 3), ("masks", 5), ("codebook", 7)]


def _told(kind: str, seed: int) -> Equivalence:
    verdict: object
    try:
        verdict = rk.fold(deciding(kind, seed), IMAGE, dynamic=False).equivalence
    except NotEquivalent as error:
        verdict = error.equivalence
    assert isinstance(verdict, Equivalence)
    return verdict


@pytest.mark.parametrize(("kind", "seed"), FEW)
def test_right_folds_are_never_refused(kind: str, seed: int) -> None:
    verdict = _told(kind, seed)
    assert verdict.passed, verdict.summary()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_right_fold_of_three_hundred_is_refused(kind: str) -> None:
    verdicts = {seed: _told(kind, seed) for seed in range(300)}
    assert not {seed: verdict.summary() for seed, verdict in verdicts.items() if not verdict.passed}


class _Off(nn.Module):
    """The network with `amount` of float32's rounding added on some inputs, and none of it in float64."""

    def __init__(
        self, where: Callable[[torch.Tensor], bool], amount: float = 0.01, error: float = 0.0
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.where, self.amount, self.error = where, amount, error
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        if self.where(x):
            # 1e8 + 1 - 1e8 is 0 in float32 and 1 in float64.
            lost = 1 - ((y * 0 + 1e8) + 1 - 1e8)
            y = y + self.amount * lost + self.error
        return y


def _large(x: torch.Tensor) -> bool:
    return bool(x.abs().max() > 20)


def _always(x: torch.Tensor) -> bool:
    return True


PLAIN = Lambda(lambda self, x: self.conv(x))


def test_a_probe_that_agrees_in_float64_is_set_aside_and_told() -> None:
    verdict = check(PLAIN, _Off(_large), IMAGE)
    assert verdict.passed
    assert list(verdict.set_aside) == ["large"]
    assert verdict.set_aside["large"].startswith("the two agree in float64, to ")
    count = len({entry.probe for entry in verdict.outputs})
    assert f"{count} probes, 1 of them set aside" in verdict.summary()
    said = f"1 of {count} probes were set aside, because what differs"
    assert any(note.startswith(said) for note in verdict.notes)
    found = run(PLAIN, _Off(_large), inputs=IMAGE).comparison
    assert found.passed
    aside = {probe.name: probe.set_aside for probe in found.probes if probe.set_aside}
    assert list(aside) == ["large"]
    assert "1 of them set aside" in found.summary()
    assert found.as_dict()["probes"][3]["set_aside"] == aside["large"]


@pytest.mark.parametrize("error", [1e-4, -2e-2, 1.0])
def test_a_mistake_on_such_a_probe_is_a_difference(error: float) -> None:
    verdict = check(PLAIN, _Off(_large, error=error), IMAGE)
    assert verdict.differs
    assert not verdict.set_aside
    assert "large" in verdict.reason


@pytest.mark.parametrize("amount", [1e-4, 0.1, 10.0])
def test_a_candidate_that_blows_rounding_up_by_itself_is_different(amount: float) -> None:
    """It is right in float64 on every probe, and off in float32 on every one where the reference is not."""
    verdict = check(PLAIN, _Off(_always, amount), IMAGE)
    assert verdict.differs
    assert not verdict.set_aside


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_candidate_that_computes_in_half_is_different(dtype: torch.dtype) -> None:
    """In float64 its conversions would be promoted, and it would be another network."""

    def lower(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).to(dtype).float() if _large(x) else self.conv(x)

    assert check(PLAIN, Lambda(lower), IMAGE).differs


def test_not_a_number_and_exceptions_are_never_set_aside() -> None:
    def overflowing(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return (y * 1e38 * 1e3) / 1e38 / 1e3 if _large(x) else y

    def raising(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        if _large(x) and x.dtype is torch.float32:
            raise RuntimeError("not in float32")
        return self.conv(x)

    def typed(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).int() if _large(x) else self.conv(x)

    for function in (overflowing, raising, typed):
        assert check(PLAIN, Lambda(function), IMAGE).differs


class _Top(nn.Module):
    """Which of two sums is larger, where they are the same number added in two orders."""

    def __init__(self, order: list[int], wrong: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.order, self.wrong = nn.Conv2d(3, 4, 3, padding=1), order, wrong
        self.eval()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x).flatten(1)
        parts = y[:, :60].reshape(-1, 3, 20)
        total = parts[:, self.order[0]] + parts[:, self.order[1]] + parts[:, self.order[2]]
        wanted = parts[:, 0] + parts[:, 1] + parts[:, 2]
        ahead = total - wanted
        picked = torch.stack([y[:, :20] + ahead, y[:, :20]], -1).argmax(-1)
        if self.wrong:
            picked = 1 - picked
        return y, picked


def test_integers_that_rounding_decides() -> None:
    """In float64 the two orders differ as well, and the reference's own choice moves with its weights."""
    reference = _Top([0, 1, 2])
    assert check(reference, copy.deepcopy(reference), IMAGE).passed
    assert check(reference, _Top([0, 1, 2], wrong=True), IMAGE).differs


def test_a_verdict_needs_other_probes() -> None:
    """Where most normal draws are off, float64 alone does not save a candidate."""
    draws = {
        float(record.probe.inputs()[0][0].flatten()[0]) for record in _normal(Reference(PLAIN, (IMAGE,)))
    }
    first = min(draws)

    def one(x: torch.Tensor) -> bool:
        return abs(float(x.flatten()[0]) - first) < 1e-6

    verdict = check(PLAIN, _Off(one), IMAGE)
    assert verdict.passed
    assert len(verdict.set_aside) == 1
    assert next(iter(verdict.set_aside)).startswith("normal")
    assert check(PLAIN, _Off(lambda x: not one(x)), IMAGE).differs


def _normal(reference: Reference) -> list[Run]:
    return [record for record in reference.records if record.probe.group == "normal"]


@pytest.mark.slow
def test_files_of_networks_that_decide(tmp_path: Path) -> None:
    """ONNX Runtime adds in another order than torch, and has no float64 run."""
    original = deciding("attention", 41)
    result = rk.fold(original, IMAGE, dynamic=False)
    saved = result.save(tmp_path / "n.onnx", tmp_path / "n.pt2")
    assert all(file.equivalence.passed for file in saved)
    assert compare(original, tmp_path / "n.onnx", inputs=IMAGE).comparison.passed
    assert compare(tmp_path / "n.onnx", tmp_path / "n.pt2", inputs=IMAGE).comparison.passed
