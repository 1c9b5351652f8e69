"""Which sizes are free after a fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import reparamkit as rk
from tests.api.networks import F32, Branchy, Classifier, Flattened, OneIsSpecial, image, net, run_onnx
from tests.nets import assert_same

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("model", [Branchy, Classifier])
def test_a_batch_of_one_stands_for_every_batch_and_size(tmp_path: Path, model: type[nn.Module]) -> None:
    original = net(model())
    folded = rk.fold(original, image(1, 4, 9, 8))
    assert folded.sizes == "free batch and spatial sizes"
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for shape in [(1, 4, 9, 8), (3, 4, 13, 6), (2, 4, 5, 5), (1, 4, 6, 7)]:
        x = image(*shape, seed=7)
        expected = original(x)
        assert_same(expected, folded.module(x), F32)
        assert_same(expected, loaded(x), F32)
        assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)


def test_a_batch_of_one_that_the_network_makes_a_number_stays_one(tmp_path: Path) -> None:
    original = net(Flattened())
    folded = rk.fold(original, image(1, 4, 9, 8))
    assert folded.sizes == "free spatial sizes"
    assert len(folded.notes) == 1
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for shape in [(1, 4, 9, 8), (1, 4, 13, 6)]:
        x = image(*shape, seed=7)
        expected = original(x)
        assert_same(expected, folded.module(x), F32)
        assert_same(expected, loaded(x), F32)
        assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(image(2, 4, 9, 8))


def test_a_network_that_treats_a_batch_of_one_in_its_own_way(tmp_path: Path) -> None:
    original = net(OneIsSpecial())
    x = image()
    assert torch.allclose(original(x) * 1.0, original(torch.cat([x, x]))[:1] * 2, rtol=1e-4)
    folded = rk.fold(original, x)
    assert any("batch of one in its own way" in note for note in folded.notes)
    folded.save(tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    assert_same(original(x), folded.module(x), F32)
    assert_same(original(x), loaded(x), F32)
    larger = image(1, 4, 12, 11, seed=2)
    assert_same(original(larger), folded.module(larger), F32)
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(torch.cat([x, x]))


@pytest.mark.parametrize(
    ("dynamic", "sizes", "probe"),
    [("batch", "free batch size", "batch=3"), (False, "fixed sizes", None)],
)
def test_fewer_free_sizes(tmp_path: Path, dynamic: Any, sizes: str, probe: str | None) -> None:
    original = net()
    folded = rk.fold(original, image(2, 4, 9, 8), dynamic=dynamic)
    assert folded.sizes == sizes
    (saved,) = folded.save(tmp_path / "net.pt2")
    probes = " ".join(entry.probe for entry in saved.equivalence.outputs)
    assert (probe in probes) if probe else ("=" not in probes)
    assert "height" not in probes
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    more = image(5, 4, 9, 8, seed=2)
    if dynamic:
        assert_same(original(more), loaded(more), F32)
    else:
        with pytest.raises(AssertionError, match="Guard failed"):
            loaded(more)


def test_the_shapes_of_torch_export_are_taken() -> None:
    shapes = ({2: Dim("h", min=4, max=64)},)
    folded = rk.fold(net(), image(2, 4, 8, 8), dynamic=shapes)
    assert folded.sizes == "free spatial sizes"
    with pytest.raises(rk.UnusableInput, match='none of "auto", "batch", False'):
        rk.fold(net(), image(), dynamic="everything")
