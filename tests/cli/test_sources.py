"""The options that say what is opened, on every command; the commands of `docs/sources.md` as they stand."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.running import ROOT, Run, assert_refused
from tests.timm_import import import_timm

NETS = """\
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width=4, act="relu"):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.narrow = nn.Conv2d(width, width, 1)
        self.act = {"relu": nn.ReLU(), "silu": nn.SiLU()}[act]
    def forward(self, x):
        x = self.stem(x)
        return self.act(self.wide(x) + self.narrow(x))
def build(width=4, act="relu"):
    torch.manual_seed(0)
    return Net(width, act).eval()
def classifier(num_classes=10, width=4):
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    return nn.Sequential(Net(width), *head).eval()
"""


@pytest.fixture
def kept(run: Run, tmp_path: Path) -> Iterator[Path]:
    """A current folder with `nets.py`, weights as safetensors and a checkpoint with an average."""
    import_timm()
    (tmp_path / "nets.py").write_text(NETS)
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    import nets  # type: ignore[import-not-found]

    state = nets.build().state_dict()
    average = {name: value * 0.5 for name, value in state.items()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(
        {"epoch": 3, "model": state, "ema": {"model": average, "decay": 0.9}}, tmp_path / "checkpoint.pth"
    )
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    yield tmp_path
    sys.modules.pop("nets", None)


def _commands() -> list[tuple[str, list[str]]]:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", page, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


@pytest.mark.slow
def test_the_commands_of_the_page_run_and_say_what_it_shows(run: Run, kept: Path) -> None:
    commands = _commands()
    assert len(commands) >= 5
    for command, shown in commands:
        program, *arguments = shlex.split(command)
        assert program == "reparamkit"
        result = run(*arguments)
        assert result.status == 0, (command, result)
        said = " ".join(result.out.split())
        assert shown
        for line in shown:
            assert " ".join(line.split()) in said, (command, result.out)


def test_arguments_on_every_command(run: Run, kept: Path) -> None:
    shape = ("--input", "1x3x8x8")
    arguments = ("--model-args", "width=6,act=silu")
    assert run("fold", "nets:build", *arguments, *shape, "-o", "net.pt2").status == 0
    assert run("check", "nets:build", "net.pt2", *arguments).status == 0
    assert run("check", "nets:build", "net.pt2").status != 0
    assert run("expand", "nets:build", *arguments, *shape, "--as", "dbb", "-o", "net.pt").status == 0
    save_file(torch.load("net.pt", weights_only=False).state_dict(), "expanded.safetensors")
    said = assert_refused(run("inspect", "nets:build", "--model-args", "depth=3", *shape))
    assert "it takes (width=4, act='relu'): give them as --model-args NAME=VALUE,…" in said
    said = assert_refused(run("inspect", "net.pt2", "--model-args", "width=3"))
    assert "has its network with it; leave out --model-args (width=3)" in said


def test_the_key_and_the_model_are_those_of_the_side_that_needs_them(run: Run, kept: Path) -> None:
    shape = ("--input", "1x3x8x8")
    weights = ("--model", "nets.py:build")
    assert run("fold", "checkpoint.pth", *weights, "--key", "model", *shape, "-o", "last.pt2").status == 0
    assert run("check", "checkpoint.pth", "last.pt2", *weights, "--key", "model").status == 0
    assert run("check", "checkpoint.pth", "last.pt2", *weights).status == 1, "the average is another network"
    said = assert_refused(run("inspect", "checkpoint.pth", *weights, "--key", "teacher", *shape))
    assert (
        "has nothing under the key 'teacher'; it holds a dict with the keys 'epoch', 'model', 'ema'" in said
    )


@pytest.mark.slow
def test_training_takes_arguments_and_its_checkpoint_keeps_them(run: Run, kept: Path) -> None:
    size = ("--input-size", "32", "--batch-size", "256")
    settings = ("--data", "digits", "--epochs", "1", *size, "--no-fold", "--workers", "0")
    net = ("nets.py:classifier", "--model-args", "width=6")
    trained = run("train", *net, "--out", "run", *settings)
    assert trained.status == 0, trained
    told = json.loads((kept / "run" / "last" / "checkpoint.json").read_text())
    assert (told["model"], told["model_args"]) == ("nets.py:classifier", "width=6")
    said = assert_refused(run("inspect", "run"))
    assert "is code; name it yourself, --model nets.py:classifier" in said
    assert run("inspect", "run", "--model", "nets.py:classifier").status == 0
    raw = run("inspect", "run/last", "--model", "nets.py:classifier", "--key", "raw")
    assert raw.status == 0
    assert "the weights of the last update" in raw.out
    said = assert_refused(run("inspect", "run", "--model", "nets.py:classifier", "--model-args", "width=5"))
    assert "was trained with the arguments width=6; leave out --model-args" in said
    said = assert_refused(
        run("train", "nets:classifier", "--model-args", "num_classes=3", "--out", "other", *settings)
    )
    assert "the number of classes is that of the data" in said
