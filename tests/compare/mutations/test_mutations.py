"""The checker finds every mistake that matters, and none where there is none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reparamkit.support.quiet import quiet
from tests.compare.mutations.campaign import Campaign, campaign
from tests.compare.mutations.networks import FULL_COUNT, build
from tests.compare.mutations.tables import tables
from tests.compare.mutations.trials import FALSE_ALARM, ONNX, PASSED, TORCH, Trials
from tests.compare.mutations.true_effect import effect, run_module, run_onnx, zero_mean_inputs
from tests.slow_share import few

BOTH = {
    "weight off by 1 %",
    "bias dropped",
    "one bias dropped",
    "kernel transposed",
    "groups permuted",
    "channels swapped",
    "padding shifted by one",
    "stride and dilation changed",
    "activation left out",
    "activation moved",
    "eps ignored",
    "branch left out",
}
KINDS = {TORCH: BOTH, ONNX: {*BOTH, "attribute changed"}}
FEW = ["repvgg_grouped", "mobileone_stride2", "vanillanet_stem", "attention_norm", "lcnetv2_stride2"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("count", "networks"), [(24, FEW[:2]), pytest.param(60, FEW, marks=pytest.mark.slow)]
)
def test_a_few_mutations_of_small_networks(count: int, networks: list[str]) -> None:
    found = campaign(seed=0, count=count, networks=networks)
    _assert_holds(found, count)
    assert len(found.pairs) == 4 * len(networks)
    assert {result.kind for result in found.results if result.exceeds} >= BOTH


@pytest.mark.slow
def test_thousands_of_mutations_of_all_networks() -> None:
    found = campaign(seed=0, count=FULL_COUNT)
    _assert_holds(found, 2000)
    assert len(found.pairs) >= 200
    for candidate, kinds in KINDS.items():
        real = {result.kind for result in found.results if result.candidate == candidate and result.changed}
        assert real == kinds


def _assert_holds(found: Campaign, count: int) -> None:
    said = tables(found.seed, found.results, found.pairs)
    assert len(found.results) >= count, said
    assert not [result for result in found.results if result.missed], said
    beyond = [result for result in found.results if result.exceeds]
    assert not [result for result in found.results if result.below == FALSE_ALARM], said
    assert all(pair.same for pair in found.pairs), said
    assert beyond, said


@pytest.mark.parametrize(
    ("name", "count"), few([("repvgg", 18), ("repvgg", 60), ("conv_ffn", 60)], ("repvgg", 18))
)
def test_the_budget_is_where_the_checker_says(name: str, count: int, tmp_path: Path) -> None:
    """Of mistakes of all sizes those beyond the budget are caught, and no rounding error is."""
    results = list(Trials(build(name, 0, tmp_path), 0).near_the_budget(count))
    assert not [result for result in results if result.missed and not result.at_the_edge]
    assert not [result for result in results if result.below == FALSE_ALARM]
    assert sum(result.exceeds for result in results) > count // 6
    assert sum(result.below == PASSED for result in results) > count // 6


@pytest.mark.slow
def test_every_mutation_is_taken_out_again(tmp_path: Path) -> None:
    network = build("lcnetv2_stride2", 1, tmp_path)
    folded, double = copy.deepcopy(network.folded), copy.deepcopy(network.folded64)
    code, written = network.folded.code, network.onnx.SerializeToString()
    trials = Trials(network, 1)
    assert len(list(trials.results(TORCH, 12))) == 12
    assert len(list(trials.results(ONNX, 12))) == 12
    for kept, now in ((folded, network.folded), (double, network.folded64)):
        names = list(kept.state_dict())
        assert all(torch.equal(kept.state_dict()[name], now.state_dict()[name]) for name in names)
    assert network.folded.code == code
    assert network.onnx.SerializeToString() == written


@pytest.mark.slow
def test_a_mutation_is_reproduced_by_its_number() -> None:
    every = campaign(3, 20, ["repvgg"]).results
    for candidate in (TORCH, ONNX):
        result = [found for found in every if found.candidate == candidate][-1]
        assert campaign(3, 20, ["repvgg"], only=(candidate, result.number)).results == [result]


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("name", ["attention_norm", "vanillanet_stem", "text_repmixer", "ghostnetv3_gated"])
def test_the_file_computes_what_the_fold_computes_in_float64(name: str, tmp_path: Path) -> None:
    """Both ways to find a true effect agree, and the fold is off by no more than the rounding of weights."""
    with quiet():
        network = build(name, 2, tmp_path)
    inputs = zero_mean_inputs(network.example, 2)
    folded = run_module(network.folded64, inputs)
    assert max(effect(run_onnx(network.onnx, inputs), folded)) < 1e-13
    assert max(effect(folded, run_module(network.original64, inputs))) < 1e-6
