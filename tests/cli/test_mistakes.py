"""Natural mistakes are answered in one line that says the next step.

Those that show at once, before torch is imported (`MISTAKES`); those of a network and its inputs when it is
first called (`LATER`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reparamkit.errors import install_line
from tests.cli.running import Run, assert_refused

SECONDS = 1.5
"""Of process time, for a machine that is busy; about 0.25 is what it takes, and torch alone takes 1.6."""

NETS = """\
from torch import nn
def build(width=4): return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU()).eval()
class Net(nn.Module): ...
"""

MISTAKES: dict[str, tuple[str, ...]] = {
    "fold nofile.pt": ("no such file 'nofile.pt'",),
    "fold weigths.pth": ("no such file 'weigths.pth'; did you mean weights.pth?",),
    "fold nowhere/x.pt": ("no such file 'nowhere/x.pt'; there is no folder 'nowhere' either",),
    "fold https://example.org/a/w.pth?x=1": (
        "curl -L -o w.pth 'https://example.org/a/w.pth?x=1'",
        "and give w.pth",
    ),
    "fold https://huggingface.co/timm/resnet18.a1_in1k": ("say hf-hub:timm/resnet18.a1_in1k",),
    "fold folder": ("folder is a folder; give a file of a model, or a folder with config.json",),
    "fold half": ("with a config.json and without weights (model.safetensors or", "copy them too"),
    "fold net.onnx": ("net.onnx is an ONNX model already; give the PyTorch model",),
    "fold empty.pt": ("empty.pt is empty (0 bytes); copy, download or export it again",),
    "fold page.pt": ("an HTML page, as a failed download leaves it; download the file itself",),
    "fold mobileone_s9": ("did you mean mobileone_s", "`reparamkit models` lists them"),
    "fold resnet18": ("'resnet18' is no reference model; timm has it: say timm:resnet18",),
    "fold timm:resnt18": ("timm has no network 'resnt18'; did you mean timm:resnet18, ",),
    "fold tim:resnet18": ("No module named 'tim', here or installed", "did you mean timm:resnet18?"),
    "fold nets/build": ("a callable is named behind a colon; say nets.py:build",),
    "fold nets.biuld": ("nets.py has no 'biuld'; did you mean nets:build?",),
    "fold nets:biuld": ("nets.py has no 'biuld'; did you mean nets:build?",),
    "fold resnet-50": ("timm has it: say timm:resnet50",),
    "fold mobileone_s1x": ("did you mean mobileone_s1, ",),
    "fold nets:build --input 1,3,64,64": ("go with x between them; say 1x3x64x64",),
    "fold nets:build --input (1,3,64,64)": ("go with x between them; say 1x3x64x64",),
    "fold nets:build --input 1*3*64*64": ("go with x between them; say 1x3x64x64",),
    "fold nets:build --input image:Nx3x64x64:uint8": (
        "sizes are numbers, and free ones are kept free without being asked for; say image:1x3x64x64:uint8",
    ),
    "fold nets:build --input -1x3x64x64": ("sizes are numbers", "say 1x3x64x64"),
    "fold nets:build --input 0x3x64x64": ("a size of 0 shows nothing; say 1x3x64x64",),
    "fold nets:build --input 1x3x64x64:fp16": ("'fp16' is no type here; say 1x3x64x64:float16",),
    "fold nets:build --input 1x3x64x64:flaot32": ("'flaot32' is no type here; say 1x3x64x64:float32",),
    "fold nets:build --input 1x3x64x64:colour": (
        "'colour' is neither a type (float64, ",
        "nor a kind (normal,",
    ),
    "fold nets:build --input x.npy": ("that is a file", "`reparamkit check … --inputs FILE`"),
    "fold nets:build --input large": ("'large' is not a shape. Write [NAME:]SHAPE[:DTYPE][:KIND]",),
    "fold nets:build --inputs x.npy": ("fold has no option --inputs; did you mean --input?",),
    "fold nets:build --shape 1x3x64x64": ("fold has no option --shape; it is --input here",),
    "fold nets:build --output": ("Option '--output' requires an argument",),
    "fold": ("fold needs SOURCE; `reparamkit fold --help` says more",),
    "check nets:build": ("check needs CANDIDATE; `reparamkit check --help` says more",),
    "convert nets:build": ("there is no command 'convert'; did you mean fold?",),
    "flod nets:build": ("there is no command 'flod'; did you mean fold?",),
    "net.onnx": ("what is to be done with net.onnx? Say fold net.onnx, or inspect net.onnx",),
    "fold nets:build -o net.onxx": ("'.onxx', which names no format", "did you mean net.onnx?"),
    "fold nets:build -o folder": ("it has no suffix", "name a file in it, such as folder/net.onnx"),
    "fold nets:build --into nets:build -o net.onnx": ("a class of your own go into .pth or .safetensors",),
    "fold nets.py": ("nets.py is Python source", "nets.py:CALLABLE; it defines build, Net"),
    "fold nets.py:biuld": ("nets.py has no 'biuld'; did you mean nets.py:build?",),
    "fold net.py:build": ("there is no file net.py; did you mean nets.py?",),
    "fold nets:build(3)": ("it is called for you; say nets:build",),
    "fold nets:build --model-args 3": ("3 has no name; write NAME=VALUE",),
    "fold nets:build -o net.tflite": ("'.tflite', which names no format (supported: .onnx, ",),
    "fold nets:build -o gone/net.pt2": ("the folder gone does not exist",),
    "fold nets:build -o net.mlpackage --coreml-labels gone.txt": ("the labels cannot be read from gone.txt",),
    "fold nets:build -o net.pt2 --image-input": ("no output is one: give -o FILE.mlpackage",),
    "fold nets:build -o net.pte --executorch-backend qnn": ("say xnnpack or portable",),
    "fold nets:build -o net.pt2 --executorch-backend portable": ("is for a .pte, and no output is one",),
    "fold nets:build -o net.onnx --opset 13": ("is not written in opset 13: say 14 to 25",),
    "fold nets:build -o net.pt2 --opset 18": ("an opset is for an .onnx, and no output is one",),
    "fold nets:build -o net.onnx --input-names a,a": ("the name 'a' is given twice",),
    "fold nets:build -o net.onnx --input-names a,": ("an input name is empty",),
    "fold nets:build -o net.onnx --output-names 0": ("would be taken for a place: begin it with a letter",),
    "fold nets:build -o net.pt --output-names a": ("is for an .onnx, .mlpackage or .pte, and no output is",),
    "fold nets:build -o net.mlpackage --output-names class": ("no name that Core ML takes", "say class_"),
    "fold nets:build --outputs 0": ("--outputs 0 keeps nothing: say how many of the first outputs, or",),
    "inspect nets:build --outputs a,,b": ("--outputs a,,b: a name is empty",),
    "fold nets:build --into nets:build -o d.pth --outputs 1": ("give one of both",),
    "check net.onnx gone.pte": ("there is no file gone.pte",),
    "fold nets:build --dynamic all": ("it is one of auto, batch and none",),
    "fold weights.pth --model nets.py": ("--model nets.py is Python source",),
    "fold weights.pth --model gone.pt": ("--model gone.pt is no network's name, and no such file",),
    "fold weights.pth --model weights.pth": ("is a file; --model names the network",),
    "fold nets:build --model nets:build": ("says what a file of weights belongs to, and there is no file",),
    "inspect tuned.safetensors": ("tuned.safetensors is damaged: its header says nothing of 'a'",),
    "inspect alone.safetensors": ("holds weights alone (1 tensors)", "pass --model with a network's name"),
    "expand nofile.pt --as dbb": ("no such file 'nofile.pt'",),
    "expand nets:build --as dbb -o net.onnx": ("an expanded network goes into .pt, .pth, .safetensors",),
    "validate nofile.pt": ("no such file 'nofile.pt'",),
    "train mobileone_s9 --out run": ("did you mean mobileone_s",),
    "check net.onnx nofile.onnx": ("there is no file nofile.onnx",),
    "check nofile.pt net.onnx": ("no such file 'nofile.pt'",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mistakes")
    (path / "folder").mkdir()
    (path / "half").mkdir()
    (path / "half" / "config.json").write_text("{}")
    (path / "nets.py").write_text(NETS)
    (path / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x032.0")
    (path / "empty.pt").write_bytes(b"")
    (path / "x.npy").write_bytes(b"\x93NUMPY")
    (path / "page.pt").write_text("<!DOCTYPE html><html>")
    (path / "weights.pth").write_bytes(b"PK\x03\x04")
    (path / "tuned.safetensors").write_bytes((9).to_bytes(8, "little") + b'{"a": 1}\n')
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (path / "alone.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


PROGRAM = """\
import atexit, json, os, sys, time
def told():
    told = {"torch": "torch" in sys.modules, "seconds": time.process_time()}
    print("\\n" + json.dumps(told), file=sys.stderr)
atexit.register(told)
from reparamkit.cli.app import main
sys.argv = ["reparamkit", *sys.argv[1:]]
main()
"""


FORKING = """\
import contextlib, io, json, os, sys, time, traceback
from reparamkit.cli.app import main
answers, mistakes = sys.argv[1], json.load(sys.stdin)
sys.argv = ["reparamkit", *mistakes[0].split(" ")]
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
    main()
ready, before = time.process_time(), sorted(os.listdir())
for number, mistake in enumerate(mistakes):
    if (child := os.fork()) == 0:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{answers}/{number}.{name}", os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv, status = ["reparamkit", *mistake.split(" ")], 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            status = 1
            traceback.print_exc()
        told = {"torch": "torch" in sys.modules, "seconds": ready + time.process_time(), "status": status}
        told["wrote"] = sorted(os.listdir()) != before
        with open(f"{answers}/{number}.json", "w") as file:
            json.dump(told, file)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Answers each mistake in a process of its own, which has imported what answering the first one needs."""


@pytest.fixture(scope="module")
def answers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of `MISTAKES` by its number: what it said (`out`, `err`) and what it took (`json`)."""
    path = tmp_path_factory.mktemp("answers")
    subprocess.run(
        [sys.executable, "-c", FORKING, str(path)],
        cwd=folder,
        input=json.dumps(list(MISTAKES)),
        text=True,
        check=True,
    )
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_said_at_once(answers: Path, mistake: str) -> None:
    number = list(MISTAKES).index(mistake)
    told = json.loads((answers / f"{number}.json").read_text())
    out, err = ((answers / f"{number}.{name}").read_text() for name in ("out", "err"))
    assert told["status"] == 2, err
    assert not told["torch"], "it was known before"
    assert not told["wrote"]
    assert told["seconds"] < SECONDS
    said = out + err
    assert "Traceback" not in said
    for words in MISTAKES[mistake]:
        assert words in said
    assert len(err.splitlines()) <= 1


def test_a_missing_extra_is_said_at_once_with_the_line_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide = "import sys; sys.modules.update(onnxscript=None)\n"
    ended = subprocess.run(
        [sys.executable, "-c", hide + PROGRAM, "fold", "nets:build", "-o", "net.onnx"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert f"needs the package 'onnxscript', which is not installed: {install_line('onnx')}" in ended.stderr
    assert not json.loads(ended.stderr.splitlines()[-1])["torch"]


def test_the_line_that_installs_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From an index, from a checkout, and from an editable one, with its constraints."""
    from importlib import metadata

    class Installed:
        told: str | None = None

        def read_text(self, name: str) -> str | None:
            return self.told if name == "direct_url.json" else None

    installed = Installed()
    monkeypatch.setattr(metadata, "distributions", lambda name: [installed])
    assert install_line("onnx") == "pip install 'reparamkit[onnx]'"
    installed.told = json.dumps({"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_line("onnx") == f"pip install '{tmp_path}[onnx]'"
    (tmp_path / "constraints.txt").write_text("")
    installed.told = json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert install_line("onnx") == f"pip install -c {tmp_path}/constraints.txt -e '{tmp_path}[onnx]'"
    installed.told = json.dumps({"url": "file:///nowhere/at/all", "dir_info": {}})
    assert install_line("onnx") == "pip install 'reparamkit[onnx]'"


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


def half() -> nn.Module:
    return build().half()


def linear() -> nn.Module:
    return nn.Linear(8, 4).eval()


def table() -> nn.Module:
    return nn.Sequential(nn.Embedding(50, 6), nn.Linear(6, 4)).eval()


class Two(nn.Module):
    """An image and a mask come in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.layer(image) * mask


class Wide(nn.Module):
    """It has to be told how wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)


def nothing() -> None:
    return None


HERE = "tests.cli.test_mistakes"
LATER: dict[str, tuple[str, ...]] = {
    "build --input 3x64x64": ("add the batch: --input 1x3x64x64",),
    "build --input 64x64x3": ("add the batch, and channels before height and width: --input 1x3x64x64",),
    "build --input 1x64x60x3": ("channels come before height and width: --input 1x3x64x60",),
    "build --input 1x3x64": ("its first layer takes 3 channels: --input 1x3x64x64",),
    "build --input 1x1x64x60": ("its first layer takes 3 channels: --input 1x3x64x60",),
    "build --input 224": ("its first layer takes 3 channels and 2 sizes behind them: --input 1x3x224x224",),
    "half --input 1x3x64x64": ("its weights are float16, so give that type: --input 1x3x64x64:float16",),
    "half --input 3x64x64": ("add the batch, in float16: --input 1x3x64x64:float16",),
    "build --input 1x3x64x64:float64": ("its weights are float32, so give that type: --input 1x3x64x64",),
    "build": ("does not say what its inputs look like; give --input, for instance --input 1x3x224x224",),
    "linear --input 2x9": ("its first layer reads 8 numbers along the last axis: --input 2x8",),
    "table --input 1x7": ("a table of 50 rows, read by whole numbers: --input 1x7:int64:0..49",),
    "table --input 1x7:int64:0..999": ("a table of 50 rows, read by whole numbers: --input 1x7:int64:0..49",),
    "Two --input 1x3x8x8": ("its forward takes (image, mask): --input image:SHAPE --input mask:SHAPE",),
    "Two --input img:1x3x8x8 --input mask:1x1x8x8": ("its forward takes (image, mask)",),
    "Two --input 1x3x8x8 --input 1x1x8x8 --input 1x1": ("its forward takes (image, mask)",),
    "Two --input image:1x3x8x8 --input 1x1x8x8": (
        "described by name and another by place: name all or none",
    ),
    "Wide --input 1x3x8x8": ("it takes (width): give them as --model-args NAME=VALUE,…",),
    "build --model-args width=8 --input 1x3x8x8": ("build() got an unexpected keyword argument 'width'",),
    "nothing --input 1x3x8x8": ("returned None; it has to return a torch.nn.Module",),
    "NETS --input 1x3x8x8": (
        "is a builtins.str; it has to be a torch.nn.Module, or to return one when called",
    ),
}


@pytest.mark.parametrize("mistake", LATER)
def test_what_shows_when_it_is_called(run: Run, mistake: str) -> None:
    name, *options = mistake.split(" ")
    message = assert_refused(run("fold", f"{HERE}:{name}", *options, "-o", "net.pt2"))
    for words in LATER[mistake]:
        assert words in message


def saved(folder: Path) -> None:
    torch.save(build().state_dict(), folder / "weights.pth")
    torch.save({"epoch": 3, "ema": {"model": build().state_dict()}}, folder / "run.ckpt")
    torch.save({"epoch": 3}, folder / "empty.ckpt")
    torch.save(nn.Conv2d(3, 8, 3).state_dict(), folder / "other.pth")
    torch.save(half(), folder / "half.pt")
    torch.save(torch.ones(3), folder / "tensor.pt")


FILES: dict[str, tuple[str, ...]] = {
    "weights.pth": (
        "holds weights alone (7 tensors)",
        "pass --model with a network's name, or MODULE:CALLABLE",
    ),
    "other.pth --model {here}:build": ("the weights do not fit the model Sequential",),
    "run.ckpt --model {here}:build --key teacher": (
        "it has nothing under the key 'teacher'",
        "'epoch', 'ema'",
    ),
    "empty.ckpt --model {here}:build": ("no weights found", "give a file that holds a model's state_dict"),
    "tensor.pt --model {here}:build": ("no weights found", "found a torch.Tensor"),
    "half.pt": ("Pass --trust-pickle",),
    "half.pt --trust-pickle": ("its weights are float16, so give that type: --input 1x3x9x8:float16",),
}


@pytest.mark.parametrize("mistake", FILES)
def test_what_shows_in_a_file(run: Run, tmp_path: Path, mistake: str) -> None:
    saved(tmp_path)
    arguments = mistake.format(here=HERE).split(" ")
    message = assert_refused(run("fold", *arguments, "--input", "1x3x9x8", "-o", "net.pt2"))
    for words in FILES[mistake]:
        assert words in message
