"""Loading a source, and the comparison of two."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

import reparamkit as rk
from tests.api.networks import F32, FREE, Branchy, image, net
from tests.nets import assert_same, randomised

pytestmark = pytest.mark.usefixtures("no_grad")


def test_load_knows_the_inputs_of_a_reference_model_and_of_a_pt2(tmp_path: Path) -> None:
    source = rk.load("repvgg_a0")
    assert isinstance(source, rk.Source)
    assert (source.name, source.path) == ("repvgg_a0", None)
    assert source.example_inputs is not None
    assert source.example_inputs[0].shape == (1, 3, 224, 224)
    program = torch.export.export(net(), (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    torch.export.save(program, tmp_path / "net.pt2")
    for path in (tmp_path / "net.pt2", str(tmp_path / "net.pt2")):
        opened = rk.load(path)
        assert (opened.name, opened.path) == ("net", tmp_path / "net.pt2")
        assert isinstance(opened.model, ExportedProgram)
        assert opened.example_inputs is not None
        assert_same(image(2, 4, 9, 8), opened.example_inputs[0], 0)
    assert len(rk.fold(rk.load(tmp_path / "net.pt2")).folds) == 2


def test_load_of_a_callable_needs_inputs_for_a_fold() -> None:
    source = rk.load("tests.api.networks:net")
    assert source.name == "net"
    with pytest.raises(rk.UnusableInput, match="example inputs are needed"):
        rk.fold(source)
    assert len(rk.fold(source, image()).folds) == 2


def test_the_notes_of_a_source_reach_the_findings(tmp_path: Path) -> None:
    torch.save({"state_dict": net().state_dict()}, tmp_path / "w.pt")
    source = rk.load(tmp_path / "w.pt", model="tests.api.networks:Branchy")
    folded = rk.fold(source, image())
    assert "the weights were found under 'state_dict'" in folded.notes
    assert_same(net()(image()), folded.module(image()), F32)


# check


def test_check_passes_what_is_the_same(tmp_path: Path, subtests: pytest.Subtests) -> None:
    original = net()
    folded = rk.fold(original, image())
    folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    for candidate in (
        folded.module,
        tmp_path / "net.onnx",
        str(tmp_path / "net.pt2"),
        copy.deepcopy(original),
    ):
        with subtests.test(type(candidate).__name__):
            verdict = rk.check(original, candidate, image(2, 4, 9, 8))
            assert isinstance(verdict, rk.Equivalence)
            assert verdict.passed, verdict.summary()
            assert rk.assert_equivalent(original, candidate, image(2, 4, 9, 8)).passed


@pytest.mark.parametrize("name", ["first.wide.1.running_mean", "second.narrow.0.weight", "second.skip.bias"])
def test_check_fails_what_is_not(name: str) -> None:
    original = net()
    other = copy.deepcopy(original)
    dict(other.state_dict())[name].flatten()[0] += 1e-3
    verdict = rk.check(original, other, image())
    assert not verdict.passed
    assert verdict.e1 > verdict.budget
    assert verdict.summary().startswith("not equivalent: ")
    with pytest.raises(rk.NotEquivalent, match="not equivalent") as caught:
        rk.assert_equivalent(original, other, image())
    assert caught.value.equivalence is not None
    assert not caught.value.equivalence.passed


@pytest.mark.parametrize("inputs", [image(), (image(),), {"x": image()}])
def test_check_takes_inputs_in_every_form(inputs: Any) -> None:
    assert rk.check(net(), net(), inputs).passed
    assert not rk.check(net(), randomised(Branchy(), seed=9), inputs).passed


def test_check_of_other_outputs() -> None:
    verdict = rk.check(net(), net(Branchy(lambda y: y[:, :3])), image())
    assert not verdict.passed
    assert math.isinf(verdict.e1)
    assert verdict.reason
    with pytest.raises(rk.UnusableInput, match="example inputs are needed"):
        rk.check(net(), net(), None)


def test_a_nan_is_never_equivalent() -> None:
    other = net()
    other.get_parameter("second.skip.bias")[0] = math.nan
    assert not rk.check(net(), other, image()).passed


def test_siblings_are_merged_where_that_is_asked_for() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.left(x).relu(), self.right(x).sigmoid()

    model, x = Heads().eval(), torch.randn(2, 3, 8, 8)
    assert not rk.fold(model, x).folds
    folded = rk.fold(model, x, merge_siblings=True)
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    assert "2 siblings as one Conv2d 3 -> 6" in str(folded.folds[0])
    assert folded.after["conv2d"] == 1
    assert rk.inspect(model, x, merge_siblings=True).after == folded.after
