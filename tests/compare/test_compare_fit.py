"""Inputs and outputs of other names, types and layouts: matched where they can be, named where not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from reparamkit.compare.compare import compare
from reparamkit.compare.inputs.input_spec import parse
from reparamkit.runners.torch import TorchRunner
from tests.compare.comparing import outcome, run
from tests.compare.files import (
    small,
    write_channels_last,
    write_graph,
    write_onnx,
)
from tests.compare.nets import Lambda


class Two(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - 2 * right


class Turned(nn.Module):
    def forward(self, right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        return left - 2 * right


class Renamed(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - 2 * b


class Keyword(nn.Module):
    def forward(self, left: torch.Tensor, scale: float = 1.0, *, right: torch.Tensor) -> torch.Tensor:
        return (left - 2 * right) * scale


@pytest.mark.parametrize("reference", [Two(), Turned(), Renamed(), Keyword()])
@pytest.mark.parametrize("candidate", [Two(), Turned(), Renamed(), Keyword()])
def test_inputs_go_by_name_and_then_by_place(reference: nn.Module, candidate: nn.Module) -> None:
    both = {type(reference), type(candidate)}
    status, _ = outcome(reference, candidate, described=parse(["2x3", "2x3"]))
    mixed = Turned in both and Renamed in both
    assert status == ("different" if mixed else "same")


def test_names_in_descriptions() -> None:
    described = parse(["right:2x3", "left:2x1"])
    found = run(Two(), Renamed(), described=described).comparison
    assert found.status == "same"
    assert [(entry.name, entry.shape) for entry in found.inputs] == [("left", (2, 1)), ("right", (2, 3))]
    by_candidate = run(Renamed(), Two(), described=described).comparison
    assert [(entry.name, entry.shape) for entry in by_candidate.inputs] == [("a", (2, 1)), ("b", (2, 3))]
    mixed = run(Two(), Two(), described=parse(["left:2x1", "2x3"])).comparison
    assert [entry.shape for entry in mixed.inputs] == [(2, 1), (2, 3)]
    gap = run(Keyword(), Two(), described=parse(["right:2x3", "left:2x1"])).comparison
    assert gap.status == "same", gap.reason
    status, reason = outcome(Two(), Two(), described=parse(["up:2x3", "2x3"]))
    assert status == "cannot tell"
    assert "there is no input 'up'; the reference's inputs are left, right" in reason


def test_onnx_inputs_in_another_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["right", "right"], ["r2"]),
        helper.make_node("Sub", ["left", "r2"], ["y"]),
    ]
    inputs = [(name, TensorProto.FLOAT, [2, 3]) for name in ("right", "left")]
    path = write_graph(tmp_path / "two.onnx", nodes, inputs, [("y", TensorProto.FLOAT, [2, 3])])
    assert compare(Two(), path).comparison.status == "same"
    assert outcome(Renamed(), path, described=parse(["2x3", "2x3"]))[0] == "different"
    status, reason = outcome(small(), path)
    assert status == "cannot tell"
    assert "takes 2 inputs (right, left), the reference takes 1 tensors" in reason


def test_an_input_in_another_layout_is_named(tmp_path: Path) -> None:
    path = write_channels_last(tmp_path / "last.onnx")
    status, reason = outcome(small().first, path)
    assert status == "cannot tell"
    assert "input 'image' of" in reason
    assert (
        "is 1x12x10x3, the reference's is 1x3x12x10: it looks like the reference's with axes permuted"
        in reason
    )
    assert "(0, 2, 3, 1)" in reason


def test_an_output_in_another_layout_is_named() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = small().first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).permute(0, 2, 3, 1)

    status, reason = outcome(small().first, Last().eval())
    assert status == "cannot tell"
    assert "shape (1, 12, 10, 8) in the candidate and (1, 8, 12, 10) in the reference" in reason
    assert reason.endswith("it looks like the reference's with axes permuted (0, 2, 3, 1)")
    status, reason = outcome(small().first, Last().eval(), described=parse(["1x3x8x8"]))
    assert status == "different"
    assert reason.endswith("it looks like the reference's with axes permuted (0, 2, 3, 1)")


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Lambda(lambda self, x: (self.conv(x), x)), "the outputs are 2 (0, 1) in the candidate"),
        (Lambda(lambda self, x: self.conv(x) > 0), "is bool in the candidate and float32"),
        (Lambda(lambda self, x: self.conv(x).long()), "is int64 in the candidate and float32"),
        (Lambda(lambda self, x: self.conv(x).flatten(1)), "holds the reference's values in another shape"),
        (Lambda(lambda self, x: self.missing(x)), "the candidate fails on the probe 'example'"),
        (Lambda(lambda self, x: "text"), "returns a str"),
        (Lambda(lambda self, x: []), "the outputs are none in the candidate"),
    ],
)
def test_outputs_that_cannot_be_compared(candidate: nn.Module, words: str) -> None:
    reference = Lambda(lambda self, x: self.conv(x))
    status, reason = outcome(reference, candidate)
    assert status == "cannot tell"
    assert words in reason


@pytest.mark.parametrize("other", [torch.int32, torch.uint8, torch.bool])
def test_integers_of_another_type_are_a_difference(other: torch.dtype) -> None:
    wide = Lambda(lambda self, x: self.conv(x).argmax(1))
    narrow = Lambda(lambda self, x: self.conv(x).argmax(1).to(other))
    status, reason = outcome(wide, narrow)
    assert status == "different"
    assert f"is {str(other)[6:]} in the candidate and int64 in the reference" in reason


def test_floats_of_another_width_are_told() -> None:
    reference = Lambda(lambda self, x: self.conv(x))
    wide = Lambda(lambda self, x: self.conv(x).double())
    found = run(reference, wide).comparison
    assert found.passed
    assert "output 'output' is float64 in the candidate and float32 in the reference" in found.notes


def test_core_ml_has_no_integers_of_64_bits() -> None:
    wide = Lambda(lambda self, x: self.conv(x).argmax(1))

    class Package(TorchRunner):
        """As the evaluator of Core ML programs names itself."""

        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__(Lambda(lambda self, x: self.conv(x).argmax(1).to(dtype)))
            self.name = "Core ML program, evaluated"

    found = run(wide, Package(torch.int32)).comparison
    assert found.passed
    assert any("Core ML has no int64" in note for note in found.notes)
    wide = Lambda(lambda self, x: self.conv(x).argmax(1))
    assert run(wide, Package(torch.uint8)).comparison.status == "different"


def test_an_input_of_another_kind_is_named(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", free=False)
    status, reason = outcome(small(), path, described=parse(["1x3x12x10:uint8"]))
    assert status == "cannot tell"
    assert "input 'image' of" in reason
    assert "is float32, the reference takes uint8" in reason


def test_integers_that_nobody_describes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)]
    path = write_graph(
        tmp_path / "ids.onnx", nodes, [("ids", TensorProto.INT64, [1, 7])], [("y", TensorProto.FLOAT, [1, 7])]
    )
    status, reason = outcome(path, path, described=())
    assert status == "cannot tell"
    assert "--input ids:1x7:int64:0..999" in reason
    assert outcome(path, path, described=parse(["ids:1x7:int64:0..999"]))[0] == "same"


def test_images_masks_and_numbers() -> None:
    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(50, 4)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
            y = self.table(ids) * mask.unsqueeze(-1)
            return y.sum((1, 2)) + pixels.float().div(255).mean((1, 2, 3))

    described = parse(["ids:2x9:int64:0..49", "mask:2x9:bool", "pixels:2x3x8x8:uint8:image"])
    found = run(Embed().eval(), Embed().eval(), described=described)
    assert found.comparison.status == "same", found.comparison.reason
    assert found.recorded is not None
    drawn = torch.cat([record.probe.inputs()[0][0].flatten() for record in found.recorded.records])
    assert 0 <= int(drawn.min()) <= int(drawn.max()) == 49
    spoilt_table = Embed().eval()
    with torch.no_grad():
        spoilt_table.table.weight[49, 2] += 1e-3
    assert outcome(Embed().eval(), spoilt_table, described=described)[0] == "different"
