"""What a fold in parts says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import assert_same, noise, randomised
from tests.spoiling import spoil
from tests.submodules.gates import Block, Gate, assert_folds, image, taken

pytestmark = pytest.mark.usefixtures("no_grad")


def test_the_findings() -> None:
    folded = assert_folds(Gate(), also=(image(3, 4, 6, 5),))
    assert folded.parts == (rk.Part("trunk", True, "", "free batch and spatial sizes"),)
    (done,) = folded.folds
    assert done.where == "trunk"
    assert done.layers == {"trunk.folded.reparam_conv": "Conv2d 4 -> 4, 3x3"}
    assert isinstance(folded.module.get_submodule("trunk.folded.reparam_conv"), nn.Conv2d)
    assert (folded.before["conv2d"], folded.before["batch_norm"], folded.before["add"]) == (2, 2, 1)
    assert folded.after == {"conv2d": 1, "relu": 1}
    assert folded.sizes == "in parts, free batch and spatial sizes"
    assert "cannot be captured as a whole: its control flow depends on the data" in folded.notes[0]
    assert "counted in the captured parts only" in folded.notes[1]
    assert len(folded.notes) == 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.module.modules())
    assert folded.equivalence is not None
    assert any("batch=3" in entry.probe for entry in folded.equivalence.outputs)


def test_inspect_finds_the_same() -> None:
    model = randomised(Gate()).double()
    found, folded = rk.inspect(model, image()), rk.fold(model, image())
    for name in ("folds", "refusals", "before", "after", "sizes", "notes", "undone", "parts"):
        assert getattr(found, name) == getattr(folded, name), name


@pytest.mark.slow
def test_a_mobileone_trunk() -> None:
    trunk = rk.models.create("mobileone_s0")
    model = Gate(trunk).eval()
    x = noise(1, 3, 64, 64, dtype=torch.float32)
    folded = rk.fold(model, x, dynamic=False)
    assert taken(folded) == ["trunk"]
    assert (folded.before["batch_norm"], folded.after.get("batch_norm", 0)) == (226, 0)
    assert folded.after["conv2d"] == 43
    assert folded.sizes == "in parts, fixed sizes"
    for y in (x, -x):
        assert_same(model(y), folded.module(y), 2e-3)
    assert folded.folds[0].where == "trunk.stage0"


def test_refusals_are_named_by_their_place_in_the_network() -> None:
    class Squared(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y * y

    folded = assert_folds(Gate(Squared()))
    assert [r.where for r in folded.refusals] == ["trunk"]


# What is wrong is not handed out


def test_a_part_that_folds_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1.0001)
    with pytest.raises(rk.NotEquivalent, match="the folded network is not equivalent"):
        rk.fold(randomised(Gate()).double(), image())
