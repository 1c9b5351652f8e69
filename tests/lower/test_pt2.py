"""The same fold is the same `.pt2`, byte for byte, in this run and in the next."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import reparamkit as rk

_SAVE = """
import sys, torch
import reparamkit as rk
from tests.lower.test_pt2 import networks
for name, (network, example) in networks().items():
    rk.fold(network, example, dynamic=False).save(f"{sys.argv[1]}/{name}.pt2")
"""


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.a(x) + self.b(x)).relu()
        return {"map": y, "mean": y.mean((2, 3))}


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return {
        "branches": (Branches().eval(), torch.randn(2, 3, 8, 8)),
        "attention": (attention.eval(), torch.randn(2, 5, 16)),
    }


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.pt2"))}


@pytest.mark.slow
def test_the_same_bytes_in_every_run(tmp_path: Path) -> None:
    hashes = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _SAVE, str(folder)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
        hashes.append(_hashes(folder))
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 2


def test_the_file_says_nothing_of_the_machine_and_the_program_keeps_its_origins(tmp_path: Path) -> None:
    network, example = networks()["branches"]
    folded = rk.fold(network, example, dynamic=False)
    for name in ("a.pt2", "b.pt2"):
        folded.save(tmp_path / name)
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("models/model.json")]
        program = archive.read(name)
    assert os.fsencode(Path(torch.__file__).parent) not in program
    nodes = json.loads(program)["graph_module"]["graph"]["nodes"]
    origins = [origin for node in nodes for origin in json.loads(node["metadata"].get("from_node", "[]"))]
    assert origins
    assert all(origin["graph_id"] < 100 for origin in origins)
    again = rk.load(tmp_path / "a.pt2").model
    assert isinstance(again, torch.export.ExportedProgram)
    assert torch.allclose(again.module()(example)["map"], folded.module(example)["map"])
