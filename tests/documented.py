"""Commands in README and docs, as they stand there, and the files that they are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.shell import ROOT

PAGES = sorted(
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if page.name not in ("cli.md", "four_ways.md", "sources.md")
)
"""`sources.md` is run by tests/cli/test_sources.py, `four_ways.md` is written by running it."""

NOT_RUN = {
    "make ": "they install: the continuous integration and `make dist` do that",
    "pip install": "they install",
    "pytest ": "the test suite itself, or a test of the reader's own",
    "timm:mobileone_s1.apple_in1k": "its weights come from the Hugging Face Hub",
    "timm:fastvit_t8.apple_in1k": "its weights come from the Hugging Face Hub",
    "transformers:BASE --adapter": "needs peft; tests/cli/test_adapters.py runs it where that is installed",
    "--adapter my-lora/": "needs peft; tests/cli/test_adapters.py runs it where that is installed",
    "my-vit": "needs transformers; tests/loading/test_libraries.py runs it where that is installed",
    "best.pt --trust-pickle": "needs ultralytics' classes",
    "ultralytics:": "needs ultralytics",
    "net.pte": "needs executorch; tests/lower runs it where that is installed",
    "reparamkit bench": "times the machine; tests/cli/test_bench.py runs it on a small network",
    "reparamkit pretrain": "takes days on many GPUs; tests/training runs it on a few images",
    "--finetune pre": "goes on from the pre-training",
    "tests/benchmarks/": "an experiment of an hour",
    "--html report.html": "needs the extra html; tests/cli/test_reports.py runs it where that is installed",
    "cat ": "shows a file",
}
"""Part of a command -> why it is not run here."""

STATUS = {"mobileone_s0 wrong.onnx": 1, "- other.onnx": 0}
"""Part of a command -> how it ends, where that is not with 0."""


@dataclass(frozen=True)
class Command:
    """A command in a page, and what is typed before it there."""

    page: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        return next((why for part, why in NOT_RUN.items() if part in self.text), "")

    @property
    def status(self) -> int:
        """How it ends."""
        return next((status for part, status in STATUS.items() if part in self.text), 0)


def commands(page: Path) -> list[Command]:
    """The commands of a page in order: in fenced blocks after a dollar sign, or set off by four spaces."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    return [Command(page.relative_to(ROOT).as_posix(), text) for text in _commands(lines)]


def _commands(lines: Iterator[str]) -> Iterator[str]:
    fence: str | None = None
    for line in lines:
        opened = re.match(r"^```(\w*)", line)
        if opened:
            fence = None if fence is not None else opened[1]
            continue
        text = ""
        if fence is None and re.match(r"^    (\$ )?(reparamkit|make|pip|pytest|python) ", line):
            text = line.strip().removeprefix("$ ")
        elif fence in ("console", "bash", "sh", "shell") and line.startswith("$ "):
            text = line[2:]
        while text.endswith("\\"):
            text = text[:-1] + next(lines).strip()
        if text:
            yield re.sub(r"\s+#.*$", "", text)


NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, deploy=False):
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.reparam = nn.Conv2d(4, 4, 3, padding=1)
        else:
            self.dense = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
            self.identity = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.reparam(x).relu() if self.deploy else (self.dense(x) + self.identity(x)).relu()

class Net(nn.Module):
    def __init__(self, num_classes, deploy):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=16), nn.ReLU())
        self.layer1 = nn.Sequential(Block(deploy), Block(deploy))
        self.head = nn.Linear(4, num_classes)

    def forward(self, image):
        return self.head(self.layer1(self.stem(image)).mean((2, 3)))

def build(num_classes=10, deploy=False):
    torch.manual_seed(0)
    return Net(num_classes, deploy).eval()

def build_train():
    return build()

def build_deploy():
    return build(deploy=True)

def deployed():
    from timm.utils.model import reparameterize_model
    import timm
    return reparameterize_model(timm.create_model("repvgg_a0").eval())

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.main, self.auxiliary = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)

    def forward(self, image):
        late = self.body(image).relu()
        return self.main(late), self.auxiliary(late)
"""


def prepare(folder: Path, page: Path) -> None:
    """The files that the commands of a page are about."""
    for package in ("my", "mypackage"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")
        (folder / package / "nets.py").write_text(NETS)
    space: dict[str, object] = {}
    exec(compile(NETS, "nets", "exec"), space)
    build: Callable[..., nn.Module] = space["build"]  # type: ignore[assignment]
    _checkpoints(folder, build())
    for name in ("net.onnx", "other.onnx", "net.xml", "net.mlpackage"):
        if any(name in command.text for command in commands(page)):
            _exported(folder / name, build())
    _words(folder)
    if any("trained.pth" in command.text for command in commands(page)):
        _trained(folder / "trained.pth")
    (folder / "labels.txt").write_text("".join(f"class {number}\n" for number in range(10)))


def _checkpoints(folder: Path, net: nn.Module) -> None:
    from safetensors.torch import save_file

    state = net.state_dict()
    save_file(state, folder / "weights.safetensors")
    for name in ("weights.pth", "net.pth"):
        torch.save(state, folder / name)
    torch.save({"model": state, "epoch": 9}, folder / "yolov6s.pth")
    torch.save({"state_dict": {"ema": state, "raw": state}}, folder / "run.ckpt")
    x = torch.randn(2, 3, 224, 224)
    torch.jit.save(torch.jit.trace(net, x), folder / "scripted.pt")
    auto = torch.export.Dim.AUTO
    free = ({0: auto, 2: auto, 3: auto},)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=free), folder / "net.pt2")


def _exported(path: Path, net: nn.Module) -> None:
    import reparamkit as rk

    folded = rk.fold(net, torch.randn(1, 3, 224, 224))
    if path.suffix != ".xml":
        folded.save(path)
        return
    import openvino

    folded.save(path.with_suffix(".ov.onnx"))
    openvino.save_model(openvino.convert_model(path.with_suffix(".ov.onnx")), path, compress_to_fp16=False)


def _trained(path: Path) -> None:
    """timm's RepVGG with statistics that it has seen; as it is drawn, no output depends on the image."""
    from tests.timm_import import import_timm

    torch.manual_seed(0)
    net = import_timm().create_model("repvgg_a0").train()
    with torch.no_grad():
        for _ in range(30):
            net(torch.randn(4, 3, 64, 64))
    torch.save(net.state_dict(), path)


class _Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(49408, 4), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.mix(self.table(ids)) * mask[..., None]


def _words(folder: Path) -> None:
    import reparamkit as rk

    ids, mask = torch.randint(0, 49408, (1, 77)), torch.rand(1, 77) > 0.5
    torch.manual_seed(0)
    rk.fold(_Words().eval(), {"ids": ids, "mask": mask}).save(folder / "a.onnx", folder / "b.onnx")
    (folder / "samples").mkdir()
    np.savez(folder / "samples" / "one.npz", ids=ids.numpy(), mask=mask.numpy())
