"""Two networks in any pair of forms, sizes and precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from reparamkit.compare.allowance import QUANTISED
from reparamkit.compare.compare import compare
from reparamkit.compare.inputs.input_spec import parse
from tests.compare.comparing import outcome, run
from tests.compare.files import (
    linear,
    small,
    spoilt,
    write_graph,
    write_half_onnx,
    write_onnx,
    write_openvino,
    write_pt2,
    write_quantised_onnx,
    write_scripted,
)
from tests.compare.nets import Lambda

# Every pair of forms


def _write(kind: str, folder: Path, broken: bool) -> object:
    if kind == "module":
        return spoilt() if broken else small()
    if kind == "pt2":
        return write_pt2(folder / "net.pt2", broken=broken)
    if kind == "torchscript":
        return write_scripted(folder / "net.pt", broken=broken)
    onnx = write_onnx(folder / "net.onnx", broken=broken)
    return onnx if kind == "onnx" else write_openvino(folder / "net.xml", onnx)


FORMS = ("module", "pt2", "torchscript", "onnx", "openvino")


@pytest.mark.diagonal(3)
@pytest.mark.parametrize("candidate", FORMS)
@pytest.mark.parametrize("reference", FORMS)
def test_every_pair_of_forms(tmp_path: Path, reference: str, candidate: str) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    right = _write(reference, tmp_path / "a", broken=False)
    found = run(right, _write(candidate, tmp_path / "b", broken=False)).comparison
    assert found.status == "same", found.reason
    sizes = {probe.group for probe in found.probes if probe.sizes}
    ones = {"height of one", "width of one", "equal sizes"}
    assert sizes == {"another batch", "another size", "odd size", "minimal size", *ones}, found.notes
    status, reason = outcome(right, _write(candidate, tmp_path / "c", broken=True))
    assert status == "different"
    assert "of the output's scale, where" in reason


def test_where_no_input_is_given_either_side_may_know(tmp_path: Path, subtests: pytest.Subtests) -> None:
    pt2, onnx = write_pt2(tmp_path / "n.pt2"), write_onnx(tmp_path / "fixed.onnx", free=False)
    for pair in ((pt2, small()), (small(), pt2), (onnx, small()), (small(), onnx)):
        with subtests.test(str(pair)):
            found = compare(*pair).comparison
            assert found.status == "same", found.reason
            assert found.inputs[0].shape[1:] == (3, 12, 10)
    found = compare(small(), write_onnx(tmp_path / "free.onnx")).comparison
    assert found.inputs[0].shape == (1, 3, 64, 64)
    assert any("leaves sizes free; 1x3x64x64 was taken" in note for note in found.notes)
    status, reason = outcome(small(), small(), described=())
    assert status == "cannot tell"
    assert "neither Small nor Small says what its inputs look like; describe them" in reason


@pytest.mark.slow
def test_a_reference_model_by_name(tmp_path: Path) -> None:
    found = compare("repvgg_a0", "repvgg_a0", described=parse(["1x3x32x32"])).comparison
    assert found.status == "same"
    assert found.reference.name == "repvgg_a0"


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_lower_precision_is_judged_by_its_own_budget(dtype: torch.dtype) -> None:
    name = str(dtype)[6:]
    found = run(small(), small().to(dtype)).comparison
    assert found.status == "same", found.reason
    assert f"candidate is {name}: floor {2 * torch.finfo(dtype).eps:.1e}" in found.rule
    assert "the reference with weights and activations rounded to" in found.rule
    assert any("its inputs were converted" in note for note in found.notes)
    assert found.equivalence is not None
    assert found.equivalence.floor == 2 * torch.finfo(dtype).eps
    assert outcome(small(), spoilt(3.0).to(dtype))[0] == "different"
    assert outcome(small().to(dtype), small())[0] == "same"
    assert outcome(small().double(), small())[0] == "different"
    assert outcome(small(), small().double())[0] == "same"


@pytest.mark.slow
def test_a_half_onnx_file(tmp_path: Path) -> None:
    found = run(small(), write_half_onnx(tmp_path / "h.onnx")).comparison
    assert found.status == "same", found.reason
    assert found.candidate.precision == "float16"
    assert "the candidate's input 'image' is float16: it was converted from float32" in found.notes
    assert outcome(small(), write_half_onnx(tmp_path / "b.onnx", factor=3.0))[0] == "different"
    weights = write_openvino(tmp_path / "h.xml", write_onnx(tmp_path / "n.onnx"), half=True)
    assert run(small(), weights).comparison.rule.startswith("candidate is float16")


@pytest.mark.slow
def test_without_a_module_the_noise_is_scaled(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "n.onnx", free=False)
    found = run(source, write_half_onnx(tmp_path / "h.onnx")).comparison
    assert found.status == "same", found.reason
    assert "rounding error, scaled by 8192 from its precision to float16" in found.rule


def test_what_leaves_the_range_of_float16_is_left_out() -> None:
    reference = nn.Conv2d(3, 4, 3, padding=1).eval()
    with torch.no_grad():
        reference.weight.mul_(3000)
    candidate = nn.Conv2d(3, 4, 3, padding=1).eval()
    candidate.load_state_dict(reference.state_dict())
    found = run(reference, candidate.half()).comparison
    assert found.status == "same", found.reason
    assert any("'large' was left out: the reference itself leaves the range" in note for note in found.notes)


def test_a_quantised_network_is_judged_by_its_mean_error(tmp_path: Path) -> None:
    shape = parse(["64x6"])
    found = run(linear(), write_quantised_onnx(tmp_path / "q.onnx"), described=shape).comparison
    assert found.status == "same", found.reason
    assert found.candidate.precision == "int8"
    assert (
        found.rule == f"candidate is int8 (quantised): {QUANTISED.stated()}, on the example and normal values"
    )
    assert found.equivalence is not None
    judged = {entry.probe for entry in found.equivalence.outputs if entry.judged}
    assert {"example", "normal 1"} <= judged
    assert "large" not in judged
    broken = write_quantised_onnx(tmp_path / "b.onnx", broken=True)
    status, reason = outcome(linear(), broken, described=shape)
    assert status == "different"
    assert "wanted 25 dB" in reason
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32))
    found = run(linear(), tmp_path / "q.onnx", data=data).comparison
    assert found.status == "same"
    assert found.rule.endswith("on the given inputs")


# Sizes


def test_an_axis_that_one_side_fixes_is_not_changed(tmp_path: Path) -> None:
    fixed = write_onnx(tmp_path / "fixed.onnx", free=False)
    found = run(small(), fixed).comparison
    assert found.status == "same"
    assert not any(probe.sizes for probe in found.probes)
    assert "compared at the example's size only: no axis is free on both sides" in found.notes


def test_a_candidate_that_is_right_at_one_size_only() -> None:
    pooled = Lambda(lambda self, x: self.conv(x).mean((2, 3)))
    fixed = Lambda(lambda self, x: self.conv(x).sum((2, 3)) / 120)
    found = run(pooled, fixed).comparison
    assert found.status == "different"
    assert {probe.group for probe in found.probes if not probe.passed} == {
        "another size",
        "odd size",
        "minimal size",
        "height of one",
        "width of one",
        "equal sizes",
    }


def test_a_file_that_declares_a_size_and_fails_at_it_is_different(tmp_path: Path) -> None:
    shape = np.array([2, 6], np.int64)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = write_graph(
        tmp_path / "r.onnx",
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 6])],
        [("y", TensorProto.FLOAT, ["batch", 6])],
        {"shape": shape},
    )

    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1

    found = run(Same(), path, described=parse(["2x6"])).comparison
    assert found.status == "different"
    assert "the candidate fails on the probe 'another batch (batch=3)'" in found.reason


def test_a_module_that_takes_one_size_is_no_failure() -> None:
    pooled = Lambda(lambda self, x: self.conv(x).mean((2, 3)))
    stubborn = Lambda(lambda self, x: self.conv(x).reshape(1, 4, 120).mean(2))
    found = run(pooled, stubborn).comparison
    assert found.status == "same"
    assert any(note.startswith("not compared at another batch, another size") for note in found.notes)


def test_outputs_that_are_true_or_false() -> None:
    def signs(self: Lambda, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return y, y > 0.5

    def other(self: Lambda, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return y, y > 0.4

    assert outcome(Lambda(signs), Lambda(signs))[0] == "same"
    assert outcome(Lambda(signs), Lambda(other))[0] == "different"
