"""What goes into a fold and what comes out, in every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.api.networks import ENDS, F32, Branchy, SavedFeatures, Two, image, net, run_onnx, scripted
from tests.nets import assert_same

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"x": x}])
def test_forms_of_input(form: Callable[[Tensor], Any]) -> None:
    model, given = net(), form(image())
    folded = rk.fold(model, given)
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    x = image(3, 4, 6, 7, seed=2)
    assert_same(model(x), folded.module(x=x) if isinstance(given, dict) else folded.module(x), F32)


@pytest.mark.parametrize("kind", ENDS)
def test_forms_of_output(kind: str) -> None:
    model = net(Branchy(ENDS[kind]))
    folded = rk.fold(model, image())
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    outputs = {entry.output for entry in folded.equivalence.outputs}
    assert len(outputs) == (1 if kind == "tensor" else 2)
    x = image(3, 4, 6, 7, seed=2)
    expected, found = model(x), folded.module(x)
    assert type(found) is type(expected)
    if kind == "dataclass":
        expected, found = vars(expected), vars(found)
    assert_same(expected, found, F32)


def test_an_unregistered_dataclass_goes_to_files(tmp_path: Path) -> None:
    model = net(Branchy(lambda y: SavedFeatures(y, y.mean((2, 3)))))
    rk.fold(model, image()).save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    x = image(3, 4, 6, 7, seed=2)
    expected = model(x)
    found = torch.export.load(tmp_path / "net.pt2").module()(x)
    assert isinstance(found, SavedFeatures)
    assert_same(vars(expected), vars(found), F32)
    assert_same([expected.fine, expected.coarse], run_onnx(tmp_path / "net.onnx", x), F32)
    names = [o.name for o in onnxruntime.InferenceSession(tmp_path / "net.onnx").get_outputs()]
    assert names == ["fine", "coarse"]


def test_several_inputs_and_keywords(tmp_path: Path) -> None:
    model = net(Two())
    inputs = {"x": image(), "other": image(seed=3)}
    folded = rk.fold(model, inputs)
    assert [f.where for f in folded.folds] == ["left", "right"]
    x, other = image(3, 4, 6, 7, seed=4), image(3, 4, 6, 7, seed=5)
    expected = model(x, other=other)
    assert_same(expected, folded.module(x=x, other=other), F32)
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    assert_same(expected, torch.export.load(tmp_path / "net.pt2").module()(x=x, other=other), F32)
    assert_same([expected], run_onnx(tmp_path / "net.onnx", x, other), F32)
    assert not torch.allclose(expected, model(x)), "the second input has to matter"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (None, "example inputs are needed.*got nothing"),
        ("1x3x8x8", "example inputs are needed.*got a str"),
        ({0: torch.zeros(1)}, "keyword arguments, but 0 is not a string"),
        (torch.zeros(1, 5, 8, 8), r"rejects the example inputs \(\[1, 5, 8, 8\] float32\).*5 channels"),
        (torch.zeros(1, 4, 8, 8).double(), "rejects the example inputs.*Double"),
        ((torch.zeros(1, 4, 8, 8), torch.zeros(2)), r"\(\[1, 4, 8, 8\] float32, \[2\] float32\): TypeError"),
        ({"y": torch.zeros(1, 4, 8, 8)}, r"rejects the example inputs .*unexpected keyword argument 'y'"),
    ],
)
@pytest.mark.parametrize("call", [rk.fold, rk.inspect])
def test_inputs_that_the_model_cannot_take(call: Callable[..., Any], inputs: Any, words: str) -> None:
    with pytest.raises(rk.UnusableInput, match=words) as caught:
        call(net(), inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("thing", ["mobileone_s0", nn.ReLU, None, 3])
def test_what_is_no_model(thing: Any) -> None:
    with pytest.raises(rk.UnusableInput, match=r"is not a model: give an nn\.Module"):
        rk.fold(thing, image())


def test_a_torchscript_model_that_rejects_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(rk.UnusableInput, match=r"rejects the example inputs \(\[1, 5, 8, 8\] float32\)"):
        rk.fold(scripted(tmp_path), image(1, 5, 8, 8))
