"""Sketches keep distances; ONNX weights are read as onnx reads them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from reparamkit.compare.locate.sketch import BUCKETS, Sketcher, distance
from reparamkit.runners.onnx_weights import jittered, without_weights
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from tests.compare.files import write_graph


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (7, 100), (2, 64, 33, 31), (1 << 20,)])
@pytest.mark.parametrize("size", [1e-9, 1e-2, 1.0])
def test_a_distance_is_that_of_the_tensors(shape: tuple[int, ...], size: float) -> None:
    sketcher = Sketcher()
    truth, noise = draw(*shape), draw(*shape, seed=1)
    wanted = float((size * noise).norm() / truth.norm())
    found = distance(sketcher(truth + size * noise), sketcher(truth))
    assert found == pytest.approx(wanted, rel=0.35)


def test_one_element_is_seen_exactly_and_order_counts() -> None:
    sketcher = Sketcher()
    truth = draw(5000)
    moved = truth.clone()
    moved[4321] += 1.0
    left, right = sketcher(moved), sketcher(truth)
    assert left is not None
    assert right is not None
    assert float((left - right).norm()) == pytest.approx(1.0)
    assert distance(sketcher(truth.roll(1)), right) > 0.5
    assert distance(sketcher(truth.roll(BUCKETS)), right) > 0.5
    assert distance(sketcher(truth.reshape(50, 100)), right) == 0.0


def test_what_has_no_sketch() -> None:
    sketcher = Sketcher()
    for tensor in (torch.arange(4), torch.empty(0), torch.tensor([1.0, math.nan]), torch.tensor([math.inf])):
        assert sketcher(tensor) is None
    assert distance(None, sketcher(draw(4))) == math.inf
    assert distance(sketcher(draw(4)), sketcher(torch.zeros(4))) == math.inf


def large(folder: Path) -> Path:
    """y = (relu(x @ a + b) @ c) for x of shape (N, 96), with weights of 36 KB and one of 384 bytes."""
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "a", "b"], ["h"], "first"),
        onnx.helper.make_node("Relu", ["h"], ["r"], "relu"),
        onnx.helper.make_node("MatMul", ["r", "c"], ["y"], "second"),
    ]
    weights = {name: draw(96, 96, seed=place).float().numpy() for place, name in enumerate("ac")}
    return write_graph(
        folder / "large.onnx",
        nodes,
        [("x", onnx.TensorProto.FLOAT, [None, 96])],
        [("y", onnx.TensorProto.FLOAT, [None, 96])],
        {**weights, "b": draw(96).float().numpy()},
    )


def test_weights_are_read_as_onnx_reads_them(tmp_path: Path) -> None:
    path = large(tmp_path)
    whole = onnx.load(path)
    rest, weights = without_weights(path)
    assert set(weights) == {"a", "c"}
    assert {entry.name for entry in rest.graph.initializer} | set(weights) == {
        entry.name for entry in whole.graph.initializer
    }
    for entry in whole.graph.initializer:
        if entry.name in weights:
            np.testing.assert_array_equal(weights[entry.name], numpy_helper.to_array(entry))
    assert [node.SerializeToString() for node in rest.graph.node] == [
        node.SerializeToString() for node in whole.graph.node
    ]
    assert all(array.size == 0 for array in without_weights(path, read=False)[1].values())
    inputs = (draw(3, 96).float(),)
    (_, plain), (_, moved) = (
        OnnxRuntimeRunner(path).run(inputs, {})[0],
        OnnxRuntimeRunner(path, rest, weights).run(inputs, {})[0],
    )
    torch.testing.assert_close(moved, plain, rtol=1e-4, atol=1e-5)


def test_jittered_weights_are_off_by_a_few_ulp(tmp_path: Path) -> None:
    path = large(tmp_path)
    held = without_weights(path)
    model, weights = jittered(*held, 0)
    for name, array in held[1].items():
        off = np.abs(weights[name] / np.where(array == 0, 1, array) - (array != 0))
        assert 0 < off.max() < 1e-6
    assert model.graph.initializer[0].SerializeToString() != held[0].graph.initializer[0].SerializeToString()


def test_weights_beside_the_file_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = large(tmp_path)
    content = path.read_bytes()
    beside = tmp_path / "beside.onnx"
    onnx.save(onnx.load(path), beside, save_as_external_data=True, location="w.data", size_threshold=16)
    with pytest.raises(ValueError, match="another file"):
        without_weights(beside)
    assert OnnxRuntimeRunner(beside).precision == "float32"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        without_weights(path)
