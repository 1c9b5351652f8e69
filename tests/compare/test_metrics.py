"""Measures and limits, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from reparamkit.compare.criteria import Criteria
from reparamkit.compare.metrics import Metrics, is_scores, measure
from reparamkit.errors import UnusableInput

TRUTH = torch.tensor([[3.0, 0.0, -4.0, 0.0]])
VALUES = torch.tensor([[3.0, 0.5, -4.0, 1.0]])


def test_every_measure_of_a_small_case() -> None:
    found = measure(VALUES, TRUTH, scale=4.0)
    assert found.max_abs == 1.0
    assert found.max_rel == 0.25
    assert found.rms == pytest.approx(math.sqrt((0.25 + 1.0) / 4))
    assert found.psnr == pytest.approx(20 * math.log10(4 / math.sqrt(1.25 / 4)))
    assert found.cosine == pytest.approx(25 / (5 * math.sqrt(9 + 0.25 + 16 + 1)))
    assert found.top1 == 1.0


def test_a_scale_that_is_not_the_tensor_s_own() -> None:
    found = measure(VALUES, TRUTH, scale=100.0)
    assert found.max_rel == 0.01
    assert found.psnr == pytest.approx(20 * math.log10(100 / math.sqrt(1.25 / 4)))


def test_nothing_differs() -> None:
    found = measure(TRUTH, TRUTH, scale=4.0)
    assert found == Metrics(0.0, 0.0, 0.0, math.inf, found.cosine, 1.0)
    assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "truth", "cosine"),
    [
        ([1.0, 0.0], [0.0, 2.0], 0.0),
        ([1.0, 1.0], [-3.0, -3.0], -1.0),
        ([1e-200, 0.0], [1e-200, 0.0], 1.0),
        ([1e200, 1e200], [1e200, -1e200], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([0.0, 0.0], [1.0, 0.0], 0.0),
    ],
)
def test_cosine(values: list[float], truth: list[float], cosine: float) -> None:
    found, wanted = (torch.tensor(each, dtype=torch.float64) for each in (values, truth))
    assert measure(found, wanted, scale=1.0).cosine == pytest.approx(cosine, abs=1e-12)


def test_an_error_on_a_scale_of_zero_is_infinite() -> None:
    found = measure(torch.ones(3), torch.zeros(3), scale=0.0)
    assert found.max_rel == math.inf
    assert found.psnr == -math.inf
    assert measure(torch.zeros(3), torch.zeros(3), scale=0.0).max_rel == 0


def test_top1_counts_rows_and_lets_ties_be() -> None:
    truth = torch.tensor([[1.0, 2.0, 0.0], [5.0, 4.999, 0.0], [0.0, 1.0, 3.0], [9.0, 1.0, 1.0]])
    values = torch.tensor([[1.0, 2.0, 0.0], [4.999, 5.0, 0.0], [0.0, 4.0, 3.0], [9.0, 1.0, 1.0]])
    assert measure(values, truth, 9.0).top1 == 0.5
    assert measure(values, truth, 9.0, tie=0.01).top1 == 0.75
    assert measure(torch.full((4, 3), math.nan), truth, 9.0, tie=0.01).top1 == 0.5  # argmax says 0


def test_what_scores_are(subtests: pytest.Subtests) -> None:
    assert is_scores(torch.zeros(1, 2))
    for other in (torch.zeros(3), torch.zeros(2, 1), torch.zeros(1, 2, 1), torch.zeros(1, 2).long()):
        with subtests.test(str(other)):
            assert not is_scores(other)
            assert measure(other, other, 1.0).top1 is None
    assert not is_scores(torch.zeros(0, 5))


def test_only_elements_that_are_finite_on_both_sides_count() -> None:
    truth = torch.tensor([1.0, math.inf, math.nan, 2.0])
    values = torch.tensor([1.5, math.inf, math.nan, math.inf])
    assert measure(values, truth, 2.0).max_abs == 0.5
    assert measure(torch.full((2,), math.nan), torch.ones(2), 1.0).max_abs == 0


def test_integers_and_booleans_are_numbers() -> None:
    found = measure(torch.tensor([1, 7]), torch.tensor([1, 4]), scale=4.0)
    assert (found.max_abs, found.max_rel) == (3.0, 0.75)
    assert measure(torch.tensor([True]), torch.tensor([False]), scale=1.0).max_abs == 1.0


def test_numbers_that_json_lacks_become_words() -> None:
    assert measure(TRUTH, TRUTH, 4.0).as_dict()["psnr"] == "inf"


FAIR = Metrics(max_abs=0.1, max_rel=0.01, rms=0.05, psnr=40.0, cosine=0.99, top1=0.9)


@pytest.mark.parametrize(
    ("name", "kept", "broken", "words"),
    [
        ("atol", 0.1, 0.099, "max abs is 0.1, allowed 0.099"),
        ("rtol", 0.01, 0.0099, "max rel is 0.01, allowed 0.0099"),
        ("psnr", 40.0, 40.1, "PSNR is 40 dB, wanted 40.1 dB"),
        ("cosine", 0.99, 0.991, "cosine is 0.99, wanted 0.991"),
        ("top1", 0.9, 0.91, "top-1 agreement is 0.9, wanted 0.91"),
    ],
)
def test_each_limit(name: str, kept: float, broken: float, words: str) -> None:
    assert Criteria(**{name: kept}).broken(FAIR) == ()
    assert Criteria(**{name: broken}).broken(FAIR) == (words,)
    assert f"{broken:g}" in Criteria(**{name: broken}).stated()
    nothing = Metrics(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
    assert len(Criteria(**{name: kept}).broken(nothing)) == 1


def test_limits_together_and_none() -> None:
    assert len(Criteria(atol=0.01, cosine=0.999).broken(FAIR)) == 2
    assert Criteria(atol=1e-3, psnr=40).stated() == "max abs ≤ 0.001, PSNR ≥ 40 dB"
    assert not Criteria().given
    assert Criteria(top1=0.5).given


def test_a_limit_on_classes_says_nothing_of_a_map() -> None:
    a_map = Metrics(0.1, 0.01, 0.05, 40.0, 0.99, None)
    assert not Criteria(top1=1.0).applies(a_map)
    assert Criteria(top1=1.0).applies(FAIR)
    assert Criteria(top1=1.0, atol=1.0).applies(a_map)


@pytest.mark.parametrize(
    "limits",
    [
        {"atol": -1.0},
        {"rtol": math.nan},
        {"psnr": math.inf},
        {"cosine": 1.1},
        {"top1": 95.0},
        {"atol": math.inf},
    ],
)
def test_limits_that_mean_nothing(limits: dict[str, float]) -> None:
    with pytest.raises(UnusableInput, match=f"--{next(iter(limits))} .* is no limit"):
        Criteria(**limits)
