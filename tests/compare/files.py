"""One small network in every form that can be compared, written once per session."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from reparamkit.lower.exported import export_program
from reparamkit.lower.onnx import save_onnx
from reparamkit.lower.pt2 import save_pt2

IMAGE = torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Two convolutions, pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(image).relu()).relu()
        return self.head(y.mean((2, 3)))


def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def spoilt(factor: float = 1.05) -> Small:
    made = small()
    with torch.no_grad():
        made.first.weight[3, 1, 1, 1] *= factor
    return made


@cache
def _program(free: bool, broken: bool) -> torch.export.ExportedProgram:
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},) if free else None
    example = torch.cat([IMAGE, IMAGE])
    return export_program(spoilt() if broken else small(), (example if free else IMAGE,), {}, shapes)


def write_pt2(path: Path, *, free: bool = True, broken: bool = False) -> Path:
    path.write_bytes(_pt2(free, broken))
    return path


def write_onnx(path: Path, *, free: bool = True, broken: bool = False, name: str = "image") -> Path:
    path.write_bytes(_onnx(free, broken, name))
    return path


def write_scripted(path: Path, *, broken: bool = False) -> Path:
    path.write_bytes(_scripted(broken))
    return path


def write_openvino(path: Path, source: Path, *, half: bool = False) -> Path:
    for suffix, content in zip((".xml", ".bin"), _openvino(source.read_bytes(), half), strict=True):
        path.with_suffix(suffix).write_bytes(content)
    return path


@cache
def _pt2(free: bool, broken: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_pt2(_program(free, broken), Path(folder) / "net.pt2")
        return (Path(folder) / "net.pt2").read_bytes()


@cache
def _onnx(free: bool, broken: bool, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        save_onnx(_program(free, broken), path, input_names=[name], output_names=["scores"])
        return path.read_bytes()


@cache
def _scripted(broken: bool) -> bytes:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        torch.jit.script(spoilt() if broken else small()).save(f"{folder}/net.pt")
        return (Path(folder) / "net.pt").read_bytes()


@cache
def _openvino(source: bytes, half: bool) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(source)
        openvino.save_model(openvino.convert_model(str(path)), f"{folder}/net.xml", compress_to_fp16=half)
        return path.with_suffix(".xml").read_bytes(), path.with_suffix(".bin").read_bytes()


def write_channels_last(path: Path) -> Path:
    """The first convolution alone, from (N, H, W, C) to (N, H, W, C)."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = small().first

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.conv(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    program = export_program(Last().eval(), (IMAGE.permute(0, 2, 3, 1).contiguous(),), {})
    save_onnx(program, path, input_names=["image"], output_names=["map"])
    return path


def write_half_onnx(path: Path, *, factor: float = 1.0) -> Path:
    """The network as `small` is, with float16 weights, inputs and outputs."""
    made = spoilt(factor).half()
    save_onnx(export_program(made, (IMAGE.half(),), {}), path, input_names=["image"], output_names=["scores"])
    return path


def write_quantised_onnx(path: Path, *, broken: bool = False) -> Path:
    """y = (Q(x) @ Q(w)), 8 bits each; x: (N, 6) -> (N, 7). Its float form is `linear`."""
    weight = linear().weight.detach().numpy().T
    step_x, step_w = np.float32(8 / 255), np.float32(np.abs(weight).max() / 127)
    quantised = np.clip(np.round(weight / step_w), -127, 127).astype(np.int8)
    if broken:
        quantised = quantised[:, ::-1].copy()
    constants: dict[str, np.ndarray | np.generic] = {
        "step_x": step_x,
        "zero_x": np.uint8(128),
        "step_w": step_w,
        "zero_w": np.int8(0),
        "w": quantised,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step_x", "zero_x"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "step_x", "zero_x"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "step_w", "zero_w"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    return write_graph(
        path,
        nodes,
        [("x", TensorProto.FLOAT, [None, 6])],
        [("y", TensorProto.FLOAT, [None, 7])],
        constants,
    )


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 7, bias=False).eval()


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
    constants: Mapping[str, np.ndarray | np.generic] | None = None,
) -> Path:
    """An ONNX file of these nodes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, path)
    return path
