"""Some networks of the campaign (`tests/hostile/campaign.py` runs thousands), and what judges them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hostile import agreement
from tests.hostile.candidates import ask_original
from tests.hostile.networks import THEMES, network, sample
from tests.hostile.outcome import FAILURES, Outcome, _compare, run
from tests.hostile.sample import Sample, many_sizes

SEEDS = range(25)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_network_is_right_or_refused(seed: int) -> None:
    outcome = run(sample(seed))
    failures = [found for found in outcome.findings if found.kind in FAILURES]
    assert not failures, f"{failures}\n{sample(seed).script(failures[0].sizes)}"
    assert outcome.status in ("ok", "refused")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_most_networks_are_folded_and_compared_in_every_format() -> None:
    """A campaign in which nearly all is refused would show nothing."""
    outcomes = [run(sample(seed)) for seed in range(100, 100 + 2 * len(THEMES))]
    assert sum(outcome.status != "refused" for outcome in outcomes) > 0.7 * len(outcomes)
    for where, share in (("module", 0.7), ("pt2", 0.6), ("onnx", 0.4)):
        assert sum(where in outcome.compared for outcome in outcomes) > share * len(outcomes), where


def test_same_seed_same_network() -> None:
    for seed in range(5):
        one, other = sample(seed), sample(seed)
        assert one.script() == other.script()
        model, example = network(seed)
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), one.module().parameters(), strict=True)
        )
        assert agreement.leaves(example)[1] == agreement.leaves(one.example())[1]


def test_networks_answer_their_own_example() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(len(THEMES)):
            drawn = sample(seed)
            assert ask_original(drawn, drawn.example()).error is None


def test_the_sizes_tried_have_the_example_ones_and_equal_sides() -> None:
    maps = next(s for s in map(sample, range(100)) if s.inputs[0].shape == ("n", 3, "h", "w"))
    sizes = many_sizes(maps)
    assert sizes[0] == maps.sizes
    assert len(sizes) >= 10
    assert len({tuple(s.items()) for s in sizes}) == len(sizes)
    assert any(all(s[name] == 1 for name in "nhw") for s in sizes)
    assert any(s["h"] == s["w"] > 1 for s in sizes)
    assert any(0 in s.values() for s in sizes)


class _Twice(nn.Module):
    """Whatever a network answers, with one thing changed."""

    def __init__(self, inner: nn.Module, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *args: object, **kwargs: object) -> object:
        value = self.inner(*args, **kwargs)
        return self.change(value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y * 1.005,
        lambda y: y.double() if y.dtype == torch.float32 else y.float(),
        lambda y: y[None],
        lambda y: (y,),
        lambda y: torch.where(torch.arange(4).reshape(4, *[1] * (y.dim() - 2)) == 3, y * 1.01, y),
        lambda y: y * 2 if y.shape[0] == 1 else y,
        lambda y: y if y.shape[-1] != 1 else y + 0.1,
    ],
)
def test_a_wrong_candidate_is_silent(change: Callable[[Any], Any]) -> None:
    """The judge sees a factor, a type, a shape, a structure, one channel, and what is wrong at ones only."""
    plain = next(s for s in map(sample, range(200)) if s.text.result == "y" and s.ideas()[1:] == ["along"])
    plain.text = plain.text.__class__(signature="x", steps=plain.text.steps[:1])
    plain.inputs, plain.call = plain.inputs[:1], "x"
    outcome = Outcome(0)
    _compare(plain, {"module": plain.module()}, outcome)
    assert not outcome.findings
    _compare(plain, {"module": _Twice(plain.module(), change)}, outcome)
    assert {found.kind for found in outcome.findings} == {"silent"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("result", "axis"),
    [
        ("y * (y - y.mean()).mean()", 1),
        ("(y - y.mean(1, keepdim=True)).sum(1)", 1),
        ("(y + 1000.0).mean((2, 3)) - y.mean((2, 3)) - 1000.0", 3),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_what_cancels_is_judged_by_what_it_cancels(result: str, axis: int, wide: bool) -> None:
    """The exact answer is 0: any rounding is infinitely more. A factor of what does not cancel is told."""
    plain = next(s for s in map(sample, range(200)) if s.text.result == "y" and s.ideas()[1:] == ["along"])
    inputs, steps = plain.inputs[:1], plain.text.steps[:1]

    def cancelling(text: str) -> Sample:
        cut = plain.text.__class__(signature="x", steps=steps, result=text)
        return replace(plain, text=cut, inputs=inputs, call="x", wide=wide)

    original = cancelling(result)
    in_another_order = result.replace("y.mean", f"y.flip({axis}).mean")
    for other, kinds in ((in_another_order, set()), (f"{result} + 1e-3", {"silent"})):
        outcome = Outcome(0)
        _compare(original, {"module": cancelling(other).module()}, outcome)
        assert {found.kind for found in outcome.findings} == kinds, outcome.findings


def _told(want: Tensor, got: Tensor, bar: agreement.Bar = agreement.WIDE) -> str | None:
    return agreement.tensor_difference(want, None, got, bar)


def test_small_channels_and_integers_are_judged_on_their_own() -> None:
    want = torch.randn(2, 4, 5, dtype=torch.float64)
    want[:, 0] *= 1e7
    got = want.clone()
    assert _told(want, got) is None
    got[:, 1] = 0
    assert _told(want, got) is not None
    assert _told(torch.arange(9), torch.arange(9) + (torch.arange(9) == 3)) == "1 of 9 integers differ"
    assert _told(torch.arange(9), torch.arange(9).int()) is not None
    special = torch.tensor([1.0, float("nan"), float("inf")])
    assert _told(special, special.clone()) is None
    assert _told(special, torch.tensor([1.0, float("inf"), float("nan")])) is not None
    assert _told(special, torch.tensor([1.0, float("nan"), float("-inf")])) is not None
