"""`reparamkit expand`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.cli.running import HERE, SHAPE, Run, assert_refused, branchy, content, save_exported
from tests.training.expand.nets import error64

THERE = "tests.cli.test_expand"


class Local(nn.Module):
    """Cannot be pickled: it holds a function of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = lambda x: 2 * x

    def forward(self, x: Tensor) -> Any:
        return self.scale(self.conv(x))


def no_convolutions() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 8, 3))


def test_a_file_to_load_and_train(run: Run, tmp_path: Path) -> None:
    done = run("expand", f"{HERE}:branchy", "--as", "dbb", "--input", f"2{SHAPE[1:]}", "-o", "net.pt")
    assert done.status == 0
    assert "1 convolution became a block; the same function in float64" in done.out
    assert "wide.0  Conv2d 4 -> 4, 3x3  dbb_origin + dbb_1x1 + dbb_1x1_kxk + dbb_avg" in done.out
    assert "narrow.0  Conv2d 4 -> 4, 1x1  dbb needs a kernel larger than one tap" in done.out
    expanded = torch.load(tmp_path / "net.pt", weights_only=False)
    x = torch.randn(2, 4, 9, 8)
    assert error64(branchy(), expanded, x) < 1e-12
    expanded.train()
    expanded(x).sum().backward()
    assert rk.expansion_report(expanded).kind == "dbb"
    folded = run("fold", "net.pt", "--trust-pickle", "--input", SHAPE, "-o", "folded.pt2")
    assert folded.status == 0, folded.err


def test_weights_alone(run: Run, tmp_path: Path) -> None:
    options = "--as", "mobileone", "--branches", "2", "--where", "wide", "--input", "2x4x9x8", "--seed", "4"
    files = "-o", "a.pth", "-o", "b.safetensors", "-o", "c.pt", "--json", "report.json"
    done = run("expand", f"{HERE}:branchy", *options, *files)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["branches"] for one in report["expanded"]] == [
        ["rbr_conv.0", "rbr_conv.1", "rbr_skip", "rbr_scale"]
    ]
    assert [entry["path"] for entry in report["files"]] == ["a.pth", "b.safetensors", "c.pt"]
    from safetensors.torch import load_file

    expanded = rk.expand(branchy(), torch.randn(2, 4, 9, 8), "mobileone", 2, "wide", seed=7)
    states = torch.load(tmp_path / "a.pth", weights_only=True), load_file(tmp_path / "b.safetensors")
    for state in states:
        expanded.load_state_dict(state)
        assert error64(branchy(), expanded, torch.randn(2, 4, 9, 8)) < 1e-12


@pytest.mark.slow
def test_a_reference_model_has_a_default_output(run: Run, tmp_path: Path) -> None:
    done = run("expand", "repvgg_a0", "--as", "acb", "--where", "stage0*")
    assert done.status == 0, done.err
    assert content(tmp_path).keys() == {"repvgg_a0.expanded.pt"}


def test_an_exported_program(run: Run, tmp_path: Path) -> None:
    save_exported(tmp_path / "net.pt2")
    done = run("expand", "net.pt2", "--as", "acb", "-o", "net.pt")
    assert done.status == 0, done.err
    assert "reparam_conv  Conv2d 4 -> 4, 3x3  square + ver + hor" in done.out
    assert "note: its convolutions are functions of parameters, so it was captured" in done.out
    expanded = torch.load(tmp_path / "net.pt", weights_only=False)
    x = torch.randn(3, 4, 9, 8)
    with torch.no_grad():
        assert torch.allclose(expanded(x), branchy()(x), atol=1e-4)


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kind": ((f"{HERE}:branchy", "--as", "dbx"), ("there is no kind 'dbx'", "did you mean 'dbb'?")),
    "branches": ((f"{HERE}:branchy", "--as", "dbb", "--branches", "0"), ("branches=0",)),
    "where": ((f"{HERE}:branchy", "--as", "dbb", "--where", "wode.0"), ("did you mean 'wide.0'",)),
    "suffix": ((f"{HERE}:branchy", "--as", "dbb", "-o", "net.onnx"), ("it has the suffix '.onnx'", ".pth")),
    "folder": ((f"{HERE}:branchy", "--as", "dbb", "-o", "no/net.pt"), ("the folder no does not exist",)),
    "twice": ((f"{HERE}:branchy", "--as", "dbb", "-o", "a.pt", "-o", "a.pt"), ("named for two outputs",)),
    "nothing": ((f"{THERE}:no_convolutions", "--as", "dbb"), ("can be expanded", "it has no convolutions")),
    "no pickle": ((f"{THERE}:Local", "--as", "dbb"), ("cannot be pickled", ".pth or .safetensors")),
    "source": (("nowhere.pt", "--as", "dbb"), ("no such file 'nowhere.pt'",)),
    "shape": ((f"{HERE}:branchy", "--as", "dbb", "--input", "2x3x9x8"), ("rejects the example inputs",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(run: Run, tmp_path: Path, case: str) -> None:
    arguments, words = REFUSED[case]
    if "--input" not in arguments and ":" in arguments[0]:
        arguments = (*arguments, "--input", "2x4x9x8")
    (tmp_path / "kept.pt").write_bytes(b"older")
    done = run("expand", *arguments)
    assert_refused(done, *words)
    assert content(tmp_path) == {"kept.pt": b"older"}


def test_no_inputs(run: Run, tmp_path: Path) -> None:
    assert_refused(run("expand", f"{HERE}:branchy", "--as", "dbb"), "does not say what its inputs look like")


def test_the_source_is_spared(run: Run, tmp_path: Path) -> None:
    torch.save(branchy(), tmp_path / "net.pt")
    before = content(tmp_path)
    options = "--as", "dbb", "--trust-pickle", "--input", "2x4x9x8", "-o", "net.pt"
    assert_refused(run("expand", "net.pt", *options), "net.pt would replace the source")
    assert content(tmp_path) == before


def test_one_file_that_cannot_be_written_keeps_the_others_back(run: Run, tmp_path: Path) -> None:
    options = "--as", "dbb", "--input", "2x4x9x8", "-o", "a.pth", "-o", "b.pt"
    assert_refused(run("expand", f"{THERE}:Local", *options), "cannot be pickled")
    assert content(tmp_path) == {}
