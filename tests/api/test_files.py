"""Files written from a fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.api.networks import F32, image, net, run_onnx
from tests.nets import Net, assert_same, noise, randomised

pytestmark = pytest.mark.usefixtures("no_grad")


def test_several_files_at_once(tmp_path: Path) -> None:
    original = net()
    folded = rk.fold(original, image())
    saved = folded.save(tmp_path / "a.pt2", str(tmp_path / "b.onnx"), tmp_path / "c.pt2")
    assert [s.path for s in saved] == [tmp_path / "a.pt2", tmp_path / "b.onnx", tmp_path / "c.pt2"]
    assert folded.saved == saved
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.pt2", "b.onnx", "c.pt2"]
    assert all(s.equivalence.passed for s in saved)
    assert saved[0].operators["conv2d"] == saved[1].operators["Conv"] == 2
    x = image(3, 4, 6, 7, seed=2)
    assert_same(original(x), torch.export.load(tmp_path / "c.pt2").module()(x), F32)
    assert_same([original(x)], run_onnx(tmp_path / "b.onnx", x), F32)


@pytest.mark.diagonal(2)
@pytest.mark.parametrize(
    ("held", "number"),
    [
        (torch.tensor([1.5]), lambda held: held.item()),
        (torch.tensor([1.5, -2.0]), lambda held: held.sum().item() ** 2),
        (torch.tensor([3]), lambda held: held.item()),
        (torch.tensor([1.5, -2.0]), lambda held: sum(held.tolist())),
    ],
)
def test_a_number_taken_out_of_a_tensor_bounds_no_size(
    tmp_path: Path, held: Tensor, number: Callable[[Tensor], Any]
) -> None:
    network = randomised(
        Net(lambda s, x: s.norm(s.conv(x)) * number(s.held), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
    )
    network.register_buffer("held", held)
    image = noise(2, 3, 8, 9, dtype=torch.float32)
    folded = rk.fold(network, image)
    folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    assert rk.check(torch.export.load(tmp_path / "net.pt2"), network, image).passed


def test_save_without_verify_verifies_the_file(tmp_path: Path) -> None:
    (saved,) = rk.fold(net(), image(), verify=False).save(tmp_path / "net.pt2")
    assert saved.equivalence.passed
    assert saved.equivalence.oracle == "float64"


def test_a_saved_file_can_be_folded_again_and_nothing_is_left_to_fold(tmp_path: Path) -> None:
    original = net()
    rk.fold(original, image()).save(tmp_path / "net.pt2")
    again = rk.fold(rk.load(tmp_path / "net.pt2"), image(seed=4))
    assert again.folds == ()
    assert again.before == again.after
    assert again.sizes == "free batch and spatial sizes"
    assert_same(original(image()), again.module(image()), F32)


@pytest.mark.parametrize("name", ["net.tflite", "net", "missing/net.pt2"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(rk.UnusableInput, match="cannot write"):
        rk.fold(net(), image(), verify=False).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
