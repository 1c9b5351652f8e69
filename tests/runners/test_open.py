"""Each back end: what it says of a network, what it computes, and what it refuses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from reparamkit.compare.float64.reference import Reference
from reparamkit.errors import MissingExtra, UnusableInput, install_line
from reparamkit.runners.base import (
    DeclaresInputs,
    InputSpec,
    Jitterable,
    Runner,
    StatesPrecision,
    least_precise,
    match_inputs,
)
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.runners.open import open_foreign, open_runner
from reparamkit.runners.openvino import OpenVinoRunner
from reparamkit.runners.torch import TorchRunner
from tests.compare.files import (
    IMAGE,
    linear,
    small,
    write_graph,
    write_half_onnx,
    write_onnx,
    write_openvino,
    write_pt2,
    write_quantised_onnx,
    write_scripted,
)


def _value(runner: Runner) -> torch.Tensor:
    ((_, value),) = runner.run((IMAGE,), {})
    return value


def test_every_back_end_computes_the_same(tmp_path: Path) -> None:
    with torch.no_grad():
        expected = small()(IMAGE)
    source = write_onnx(tmp_path / "net.onnx")
    for path in (
        source,
        write_pt2(tmp_path / "net.pt2"),
        write_scripted(tmp_path / "net.pt"),
        write_openvino(tmp_path / "net.xml", source),
    ):
        runner = open_runner(path)
        assert isinstance(runner, StatesPrecision)
        assert runner.precision == "float32"
        assert torch.allclose(_value(runner), expected, atol=1e-6), path.name


def test_what_an_onnx_file_declares(tmp_path: Path) -> None:
    runner = OnnxRuntimeRunner(write_onnx(tmp_path / "net.onnx"))
    (spec,) = runner.declared
    assert (spec.name, spec.dtype) == ("image", torch.float32)
    assert spec.shape is not None
    assert [type(size) for size in spec.shape] == [str, int, str, str]
    assert runner.output_names == ["scores"]
    assert isinstance(runner, DeclaresInputs)
    fixed = OnnxRuntimeRunner(write_onnx(tmp_path / "fixed.onnx", free=False))
    assert fixed.declared[0].shape == (1, 3, 12, 10)


def test_what_an_ir_declares(tmp_path: Path) -> None:
    runner = OpenVinoRunner(write_openvino(tmp_path / "n.xml", write_onnx(tmp_path / "n.onnx")))
    assert runner.declared == [InputSpec("image", ("image[0]", 3, "image[2]", "image[3]"), torch.float32)]
    assert runner.output_names == ["scores"]
    fixed = write_openvino(tmp_path / "f.xml", write_onnx(tmp_path / "f.onnx", free=False))
    assert OpenVinoRunner(fixed).declared[0].shape == (1, 3, 12, 10)


@pytest.mark.slow
def test_precisions(tmp_path: Path) -> None:
    assert TorchRunner(small().half()).precision == "float16"
    assert TorchRunner(small().double()).precision == "float64"
    assert TorchRunner(nn.Sequential(small(), nn.Linear(5, 5).bfloat16())).precision == "bfloat16"
    assert TorchRunner(nn.ReLU()).precision == "float32"
    assert OnnxRuntimeRunner(write_half_onnx(tmp_path / "half.onnx")).precision == "float16"
    assert OnnxRuntimeRunner(write_quantised_onnx(tmp_path / "q.onnx")).precision == "int8"
    source = write_onnx(tmp_path / "net.onnx")
    assert OpenVinoRunner(write_openvino(tmp_path / "h.xml", source, half=True)).precision == "float16"
    quantised = write_openvino(tmp_path / "q.xml", tmp_path / "q.onnx")
    assert OpenVinoRunner(quantised).precision == "int8"
    cast = [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16)]
    cast.append(helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT))
    ports = [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])]
    assert OnnxRuntimeRunner(write_graph(tmp_path / "c.onnx", cast, *ports)).precision == "float16"


@pytest.mark.filterwarnings("ignore")
def test_quantised_torch_modules() -> None:
    dynamic = torch.ao.quantization.quantize_dynamic(linear().float(), {nn.Linear}, torch.qint8)
    if isinstance(dynamic, nn.Linear):
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear()), {nn.Linear})
    assert TorchRunner(dynamic).precision == "int8"
    assert least_precise(set()) == "float32"


def test_jittered_weights_move_the_output_a_little(tmp_path: Path) -> None:
    runner = OnnxRuntimeRunner(write_onnx(tmp_path / "net.onnx"))
    assert isinstance(runner, Jitterable)
    moved = float((_value(runner.jittered(0)) - _value(runner)).abs().max())
    assert 0 < moved < 1e-5
    assert torch.equal(_value(runner.jittered(3)), _value(runner.jittered(3)))


def test_inputs_go_by_name_and_then_by_place() -> None:
    left, right = torch.ones(1), torch.zeros(1)
    specs = [InputSpec("a", (1,), torch.float32), InputSpec("b", (1,), torch.float32)]
    assert match_inputs(specs, [("b", left), ("a", right)], "f") == {"a": right, "b": left}
    assert match_inputs(specs, [("0", left), ("1", right)], "f") == {"a": left, "b": right}
    assert match_inputs(specs, [("0", left), ("a", right)], "f") == {"a": right, "b": left}
    with pytest.raises(UnusableInput, match=r"f takes 2 inputs \(a, b\), the reference takes 1 tensors"):
        match_inputs(specs, [("0", left)], "f")
    with pytest.raises(
        UnusableInput, match=r"input 'b' of f is torch.float32, the reference takes torch.int64"
    ):
        match_inputs(specs, [("0", left), ("1", right.long())], "f")


def test_two_inputs_in_openvino(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    ports = [(name, TensorProto.FLOAT, [2]) for name in ("a", "b")], [("y", TensorProto.FLOAT, [2])]
    source = write_graph(tmp_path / "sub.onnx", nodes, *ports)
    runner = OpenVinoRunner(write_openvino(tmp_path / "sub.xml", source))
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0])
    assert runner.run((a, b), {})[0][1].tolist() == [2, 3]
    assert runner.run((), {"b": a, "a": b})[0][1].tolist() == [-2, -3]
    with pytest.raises(UnusableInput, match="takes 2 inputs"):
        runner.run((a,), {})


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for name in ("bad.onnx", "bad.xml"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UnusableInput, match=r"bad\.onnx is damaged or no ONNX file"):
        open_foreign(tmp_path / "bad.onnx")
    with pytest.raises(UnusableInput, match=r"bad\.xml: the weights bad\.bin are not beside it"):
        open_foreign(tmp_path / "bad.xml")
    (tmp_path / "bad.bin").write_bytes(b"")
    with pytest.raises(UnusableInput, match=r"bad\.xml is damaged or no OpenVINO IR"):
        open_foreign(tmp_path / "bad.xml")
    (tmp_path / "net.mlpackage").mkdir()
    with pytest.raises(UnusableInput, match=r"net.mlpackage is no .mlpackage: its Manifest.json cannot"):
        open_foreign(tmp_path / "net.mlpackage")
    assert open_foreign(tmp_path / "net.pt2") is None


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("onnxruntime", "net.onnx", "onnx"),
        ("openvino", "net.xml", "openvino"),
        ("coremltools.proto", "net.mlpackage", "coreml"),
    ],
)
def test_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, extra: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=re.escape(install_line(extra))):
        open_foreign(tmp_path / name)


def test_the_noise_of_an_onnx_reference_is_that_of_its_weights_too(tmp_path: Path) -> None:
    """Integers have no rounding noise, so all that is left is that of the weights."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ports = [("ids", TensorProto.INT64, [2, 6])], [("y", TensorProto.FLOAT, [2, 7])]
    path = write_graph(tmp_path / "ids.onnx", nodes, *ports, {"w": linear().weight.detach().numpy().T})
    reference = Reference(path, (torch.arange(12).reshape(2, 6),))
    noises = [record.truths[0].noise / record.truths[0].scale for record in reference.records]
    assert all(1e-8 < noise < 1e-5 for noise in noises)
