"""A file on which ONNX Runtime ends its process does not end the one that verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.export import Dim

import reparamkit as rk
from reparamkit.errors import NotEquivalent
from reparamkit.lower.exported import export_program
from reparamkit.lower.onnx import save_onnx
from reparamkit.runners.onnx_apart import may_abort
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from tests.nets import Net, noise, randomised


def _recurrent(kind: type[nn.Module]) -> Net:
    return randomised(Net(lambda s, x: s.rnn(x)[0], rnn=kind(4, 5, batch_first=True)))


def _written(network: nn.Module, path: Path) -> Path:
    sizes = ({0: Dim.AUTO, 1: Dim.AUTO},)
    save_onnx(export_program(network, (torch.randn(2, 3, 4),), {}, sizes), path)
    return path


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_end_of_onnx_runtime_is_an_error_and_the_next_run_starts_anew(
    tmp_path: Path, kind: type[nn.Module]
) -> None:
    network = _recurrent(kind)
    runner = OnnxRuntimeRunner(_written(network, tmp_path / "net.onnx"))
    for batch in (2, 0, 5):
        image = torch.randn(batch, 3, 4)
        if not batch:
            with pytest.raises(RuntimeError, match=r"ONNX Runtime ends its process \(SIGABRT\)"):
                runner.run((image,), {})
            continue
        ((_, value),) = runner.run((image,), {})
        assert torch.allclose(value, network(image), 1e-4, 1e-5)
    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        runner.run((torch.randn(2, 3, 7),), {})
    ((_, value),) = runner.run((torch.ones(1, 2, 4),), {})
    assert value.shape == (1, 2, 5)


def test_other_files_run_here(tmp_path: Path) -> None:
    path = _written(randomised(Net(lambda s, x: s.fc(x), fc=nn.Linear(4, 5))), tmp_path / "net.onnx")
    assert not may_abort(onnx.load(path))
    assert OnnxRuntimeRunner(path)._apart is None


def test_the_operators_are_found_inside_branches_and_functions() -> None:
    inner = helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=3)
    other = helper.make_node("Relu", ["x"], ["y"])

    def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), "g", [], [])

    def branches(*nodes: onnx.NodeProto) -> onnx.NodeProto:
        return helper.make_node("If", ["c"], ["z"], then_branch=graph(*nodes), else_branch=graph(other))

    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "f", ["x"], ["y"], [inner], opset)
    assert may_abort(helper.make_model(graph(other, inner)))
    assert may_abort(helper.make_model(graph(branches(branches(inner)))))
    assert may_abort(helper.make_model(graph(other), functions=[function]))
    assert not may_abort(helper.make_model(graph(other, branches(branches(other)))))


def _half(s: Any, x: Tensor) -> Tensor:
    """A batch of half the rows: none, of one row."""
    y: Tensor = s.rnn(s.conv(x)[:, :, : x.shape[2] // 2].mean(3).permute(2, 0, 1))[0]
    return y


def _nothing(s: Any, x: Tensor) -> Tensor:
    y: Tensor = s.conv(x)
    return y.sum() + s.rnn(y[:0].flatten(2).mT)[0].sum()


@pytest.mark.slow
def test_saving_a_network_with_an_empty_batch_inside(tmp_path: Path) -> None:
    image = noise(2, 3, 8, 9, dtype=torch.float32)
    networks = [
        randomised(Net(f, conv=nn.Conv2d(3, 4, 3, padding=1), rnn=nn.GRU(4, 5, batch_first=True)))
        for f in (_half, _nothing)
    ]
    rk.fold(networks[0], image).save(tmp_path / "half.onnx")
    shape = onnxruntime.InferenceSession(tmp_path / "half.onnx").get_inputs()[0].shape
    assert shape[2] == 8
    with pytest.raises(NotEquivalent, match=r"ONNX Runtime ends its process \(SIGABRT\)"):
        rk.fold(networks[1], image).save(tmp_path / "nothing.onnx")
