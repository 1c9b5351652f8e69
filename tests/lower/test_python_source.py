"""A folded network as plain source: run in an interpreter that knows no reparamkit, and read by eye."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import reparamkit as rk
from reparamkit.errors import CannotWrite
from reparamkit.lower import python_source
from tests.into import pairs
from tests.nets import noise, randomised
from tests.timm_import import import_timm


def image(batch: int = 2, size: int = 8, seed: int = 0) -> torch.Tensor:
    return noise(batch, 3, size, size, seed=seed, dtype=torch.float32)


@pytest.mark.diagonal(6)
@pytest.mark.parametrize("name", pairs.PAIRS)
def test_it_computes_the_same(name: str, tmp_path: Path) -> None:
    original = randomised(pairs.trained(name), seed=1)
    folded = rk.fold(original, image(), dynamic=False, verify=False)
    python_source.write(folded.module, tmp_path / "net.py")
    text = (tmp_path / "net.py").read_text()
    assert "import reparamkit" not in text
    assert "fx" not in text
    assert "getattr" not in text
    assert "_unnamed" not in text
    x = image(seed=3)
    opened = python_source.open_source(tmp_path / "net.py")
    with torch.no_grad():
        assert torch.equal(opened(x), folded.module(x))


def test_it_reads_like_a_person_s(tmp_path: Path) -> None:
    folded = rk.fold(randomised(pairs.trained("mobileone_se"), seed=1), image(), dynamic=False)
    python_source.write(folded.module, tmp_path / "net.py")
    text = (tmp_path / "net.py").read_text()
    assert "self.stem = nn.Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))" in text
    assert "self.head = nn.Linear(in_features=6, out_features=4, bias=True)" in text
    forward = text.split("def forward(self, x):")[1].split("def check_sizes")[0]
    assert [line.strip() for line in forward.strip().splitlines()][:4] == [
        "self.check_sizes(x)",
        "x = self.stem(x)",
        "x = self.blocks_0_depthwise_reparam_conv(F.relu(x))",
        "y = self.blocks_0_depthwise_act_0_down(x.mean([2, 3], True))",
    ]
    assert "torch.ops" not in text
    assert max(map(len, text.splitlines())) < 130


def test_free_sizes_stay_free_and_the_others_are_refused(tmp_path: Path) -> None:
    original = randomised(pairs.trained("levit_attention"), seed=1)
    folded = rk.fold(original, image())
    python_source.write(folded.module, tmp_path / "net.py")
    opened = python_source.open_source(tmp_path / "net.py")
    x = image(5, seed=2)
    torch.testing.assert_close(opened(x), original(x), rtol=1e-4, atol=1e-5)
    with pytest.raises((ValueError, RuntimeError)):
        opened(image(2, size=9))


def test_it_needs_no_reparamkit(tmp_path: Path) -> None:
    folded = rk.fold(randomised(pairs.trained("yolo_csp"), seed=1), image(), dynamic=False)
    python_source.write(folded.module, tmp_path / "net.py")
    x = image(seed=3)
    torch.save((x, folded.module(x)), tmp_path / "run.pt")
    script = (
        "import sys, torch, net; torch.set_num_threads(1); x, y = torch.load('run.pt'); "
        "torch.testing.assert_close(net.load()(x), y); assert 'reparamkit' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class _Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor, *, scale: torch.Tensor) -> dict[str, object]:
        y = self.norm(self.conv(image).relu()[:, :3]) * scale
        return {"map": y, "pair": (y + 1, y.sum((1, 2, 3)))}


def test_keywords_and_containers(tmp_path: Path) -> None:
    model = randomised(_Dictionary(), seed=1).eval()
    inputs = {"image": image(), "scale": torch.full((1,), 0.5)}
    folded = rk.fold(model, inputs, dynamic=False)
    python_source.write(folded.module, tmp_path / "net.py")
    result, expected = python_source.open_source(tmp_path / "net.py")(**inputs), model(**inputs)
    assert result.keys() == expected.keys()
    torch.testing.assert_close(result["pair"], expected["pair"], rtol=1e-4, atol=1e-5)


def test_what_python_cannot_import(tmp_path: Path) -> None:
    folded = rk.fold(randomised(pairs.trained("resnet"), seed=1), image(), dynamic=False)
    with pytest.raises(CannotWrite, match="is no name that Python can import"):
        python_source.write(folded.module, tmp_path / "my-net.py")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvit_m0_9", "fastvit_t8", "levit_128s"])
def test_networks_of_timm(name: str, tmp_path: Path) -> None:
    size = 224 if name.startswith("levit") else 64
    x = image(1, size=size)
    model = import_timm().create_model(name).eval()
    folded = rk.fold(model, x, dynamic=False, verify=False)
    python_source.write(folded.module, tmp_path / "net.py")
    with torch.no_grad():
        assert torch.equal(python_source.open_source(tmp_path / "net.py")(x), folded.module(x))


def test_it_is_saved_like_any_other_format(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    folded = rk.fold(network, torch.randn(1, 3, 8, 8))
    (saved,) = folded.save(tmp_path / "net.py")
    assert saved.equivalence.passed
    assert saved.operators == {"Conv2d": 1}
    assert any(
        entry.probe.startswith("batch of one") or "batch=" in entry.probe
        for entry in saved.equivalence.outputs
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "net.safetensors"]
    folded.save(tmp_path / "net.py")  # its own weights are replaced


def test_weights_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"mine")
    folded = rk.fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), torch.randn(1, 3, 8, 8))
    with pytest.raises(rk.UnusableInput, match="another file of that name"):
        folded.save(tmp_path / "net.py")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert (tmp_path / "net.safetensors").read_bytes() == b"mine"
