"""The command line: what it prints where, what it writes, and the exit status."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import onnx
import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.cli import app as cli
from reparamkit.operators.base import _READERS, Call, Meaning
from tests.loading.files import write_scripted
from tests.nets import assert_same, noise, randomised
from tests.slow_share import few
from tests.spoiling import spoil

HERE = "tests.cli.test_app"
ROOT = Path(__file__).resolve().parents[2]
SHAPE = "1x4x9x8"


class Branchy(nn.Module):
    """Three branches, and a product of two values, which stays."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.skip = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.wide(x) + self.narrow(x) + self.skip(x))
        return y * y


class Choosy(Branchy):
    """Control flow on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def branchy() -> nn.Module:
    return randomised(Branchy())


class Words(nn.Module):
    """Integers and a mask come in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        self.mix = nn.Conv1d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(self.norm(self.mix(self.table(ids).transpose(1, 2)))) * mask[:, None]


def words() -> nn.Module:
    return randomised(Words())


def training() -> nn.Module:
    return branchy().train()


class Siblings(nn.Module):
    """Two convolutions of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x).relu(), self.right(x).sigmoid()


def heads() -> nn.Module:
    return randomised(Siblings())


def choosy() -> nn.Module:
    return randomised(Choosy())


class Bare(nn.Module):
    """Control flow on the data, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def choosy_norms() -> nn.Module:
    return nn.Sequential(Bare(), two_norms()).eval()


def two_norms() -> nn.Module:
    layers = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
    return randomised(nn.Sequential(*layers))


def broken() -> nn.Module:
    model = branchy()
    with torch.no_grad():
        model.get_parameter("wide.0.weight")[0, 0, 0, 0] = math.nan
        model.get_parameter("skip.bias")[1] = math.inf
    return model


@dataclass(frozen=True)
class Result:
    """What a run of the command line left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, in an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["reparamkit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capfd.readouterr()
        status = end.value.code or 0
        assert isinstance(status, int)
        return Result(status, captured.out, captured.err)

    return call


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $R is the command."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "R": f"{sys.executable} -m reparamkit.cli.app", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refused(result: Result, *words: str) -> str:
    """A complaint with these words, one line unless it gives advice, and nothing on stdout."""
    assert result.status == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    progress, mark, message = result.err.rstrip("\n").partition("reparamkit: error: ")
    assert mark
    assert all(line.endswith(" …") for line in progress.splitlines()), result.err
    assert message.count("\n") == ("No registered variant fits it." in words)
    for word in words:
        assert word in message
    return message


def save_exported(path: Path, batch: int = 2) -> Path:
    auto = torch.export.Dim.AUTO
    x = noise(batch, 4, 9, 8, dtype=torch.float32)
    torch.export.save(
        torch.export.export(branchy(), (x,), dynamic_shapes=({0: auto, 2: auto, 3: auto},)), path
    )
    return path


def assert_same_as_branchy(path: Path) -> None:
    """The `.pt2` computes what `branchy` does, at another batch and size."""
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(branchy()(x), torch.export.load(path).module()(x), 2e-5)


# Real processes: the exit status, and what goes to which stream


def test_a_whole_fold_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(f"from {HERE} import branchy as build\n")
    done = shell(tmp_path, f"$R fold my_net:build --input {SHAPE} -o net.onnx --json net.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "opening my_net:build …",
        "folding build …",
        "writing and verifying net.onnx …",
    ]
    lines = done.stdout.splitlines()
    assert lines[0] == "build  (free batch and spatial sizes)"
    assert any(line.split() == ["batch_norm", "3", "0"] for line in lines)
    assert any(line.startswith("1 fold, each proven in float64") for line in lines)
    assert any(line.startswith("whole network: equivalent: error ") for line in lines)
    assert any(line.startswith("net.onnx: equivalent: error ") for line in lines)
    assert {f for f in content(tmp_path) if "__pycache__" not in f} == {"my_net.py", "net.onnx", "net.json"}


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell(tmp_path, "touch empty.pt; $R fold empty.pt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("reparamkit: error: empty.pt is empty (0 bytes)")
    assert "Traceback" not in done.stderr


def test_a_failed_verification_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "spoilt.py").write_text(
        "import sys\n"
        "from reparamkit.cli import app as cli\n"
        "import pytest\n"
        "from tests.spoiling import spoil\n"
        "spoil(pytest.MonkeyPatch())\n"
        "cli.main()\n"
    )
    before = content(tmp_path)
    done = shell(tmp_path, f"{sys.executable} spoilt.py fold {HERE}:branchy --input {SHAPE} -o out.pt2")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "reparamkit: verification failed: the folded network is not equivalent" in done.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize("arguments", few(["models", "--help"], "models"))
def test_a_reader_who_leaves_in_processes_of_their_own(tmp_path: Path, arguments: str) -> None:
    done = shell(tmp_path, f"$R {arguments} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_full_stdout_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell(tmp_path, "$R models > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "reparamkit: error: the report cannot be written: No space left on device\n"


def lost(kind: str) -> TextIO:
    """A stream of which nothing arrives: its reader has left, or its disk is full."""
    if kind == "full":
        return open("/dev/full", "w")
    ours, theirs = os.pipe()
    os.close(ours)
    return os.fdopen(theirs, "w")


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", ["pipe", "full"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_fold_finishes_though_nobody_reads(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, kind: str
) -> None:
    monkeypatch.setattr(sys, stream, lost(kind))
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2")
    failed = (stream, kind) == ("stdout", "full")
    assert result.status == (2 if failed else 0)
    assert ("the report cannot be written: No space left" in result.err) == failed
    assert_same_as_branchy(tmp_path / "out.pt2")
    getattr(sys, stream).close()


@pytest.mark.parametrize("kind", ["pipe", "full"])
def test_a_complaint_that_nobody_reads(run: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sys, "stderr", lost(kind))
    assert run("fold", "nofile.pt").status == 2
    sys.stderr.close()


def test_on_a_terminal_a_source_is_no_markup(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reparamkit.cli.app", "inspect", "a[/red] :warning:"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += (more := os.read(ours, 4096))
            except OSError:  # how Linux ends a terminal
                break
            if not more:
                break
        os.close(ours)
        assert process.wait() == 2
    assert b"no such file 'a[/red] :warning:'" in seen
    assert b"Traceback" not in seen


# Sources


@pytest.mark.parametrize(
    ("name", "convs", "norms", "adds", "left"),
    [
        ("repvgg_a0", 44, 61, 44, 22),
        pytest.param("mobileone_s0", 191, 226, 212, 43, marks=pytest.mark.slow),
    ],
)
def test_a_reference_model_by_name(
    run: Run, tmp_path: Path, name: str, convs: int, norms: int, adds: int, left: int
) -> None:
    result = run("fold", name, "--input", "1x3x64x64", "--dynamic", "none")
    assert result.status == 0, result.err
    assert list(content(tmp_path)) == [f"{name}.folded.pt2"]
    rows = [line.split() for line in result.out.splitlines()]
    assert ["conv2d", str(convs), str(left)] in rows
    assert ["batch_norm", str(norms), "0"] in rows
    assert ["add", str(adds), "0"] in rows
    assert f"{name}  (fixed sizes)" in result.out
    program = torch.export.load(tmp_path / f"{name}.folded.pt2")
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert sum("conv2d" in t for t in targets) == left
    assert not any("batch_norm" in t or "add" in t for t in targets)


@pytest.mark.parametrize("named", [True, False])
def test_inputs_that_are_no_images(run: Run, tmp_path: Path, named: bool) -> None:
    ids, mask = ("ids:", "mask:") if named else ("", "")
    inputs = ["--input", f"{ids}2x9:int64:0..49", "--input", f"{mask}2x9:bool"]
    result = run("fold", f"{HERE}:words", *inputs, "-o", "words.onnx")
    assert result.status == 0, result.err
    model = onnx.load(tmp_path / "words.onnx")
    assert [entry.name for entry in model.graph.input] == ["ids", "mask"]
    types = [entry.type.tensor_type.elem_type for entry in model.graph.input]
    assert types == [onnx.TensorProto.INT64, onnx.TensorProto.BOOL]
    assert "1 operator that might be expected to fold and stays" in result.out
    refused(run("fold", f"{HERE}:words", "--input", "2x9:int64"), "integers need a range")


def test_a_callable_of_a_module_in_the_current_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd_net_of_test_cli.py").write_text(f"from {HERE} import branchy as build\n")
    path = list(sys.path)
    result = run("fold", "cwd_net_of_test_cli:build", "--input", SHAPE)
    monkeypatch.delitem(sys.modules, "cwd_net_of_test_cli")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "build.folded.pt2")
    assert sys.path == path


def test_a_pt2_file_brings_its_inputs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_exported(tmp_path / "in" / "my.net.pt2")
    result = run("fold", "in/my.net.pt2")
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"in/my.net.pt2", "in/my.net.folded.pt2"}
    assert_same_as_branchy(tmp_path / "in" / "my.net.folded.pt2")


def test_a_pt2_file_with_a_free_batch_given_one_image(run: Run, tmp_path: Path) -> None:
    save_exported(tmp_path / "net.pt2")
    result = run("fold", "net.pt2", "--input", "1x4x8x8", "-o", "out.pt2")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "out.pt2")


def test_inputs_are_given_in_order_keywords_too(run: Run, tmp_path: Path) -> None:
    class Scaled(Branchy):
        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale

    inputs = (noise(2, 4, 9, 8, dtype=torch.float32),), {"scale": noise(2, 1, 1, 1, dtype=torch.float32)}
    torch.export.save(torch.export.export(randomised(Scaled()), *inputs), tmp_path / "net.pt2")
    assert run("inspect", "net.pt2").status == 0
    result = run("inspect", "net.pt2", "--input", "2x4x9x8", "--input", "2x1x1x1")
    assert result.status == 0, result.err


def test_a_torchscript_file(run: Run, tmp_path: Path) -> None:
    write_scripted(tmp_path / "net.pt", randomised(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))))
    assert "give --input, for instance" in refused(run("fold", "net.pt"))
    result = run("fold", "net.pt", "--input", SHAPE, "-o", "out.pt2")
    assert result.status == 0, result.err
    assert "1 fold, each proven" in result.out
    assert (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda state: state, ""),
        (lambda state: {"epoch": 3, "state_dict": state}, "found under 'state_dict'"),
        (lambda state: {"model": state}, "found under 'model'"),
        (lambda state: {"model": {}, "model_ema": state}, "found under 'model_ema'"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, ""),
        (
            lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
            "found under 'state_dict'",
        ),
    ],
    ids=["plain", "state_dict", "model", "model_ema", "ddp", "nested ddp"],
)
def test_weights_with_a_model(
    run: Run, tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], note: str
) -> None:
    torch.save(wrap(branchy().state_dict()), tmp_path / "w.pth")
    result = run("fold", "w.pth", "--model", f"{HERE}:Branchy", "--input", SHAPE)
    assert result.status == 0, result.err
    assert (note in result.out) if note else ("found under" not in result.out)
    assert "training mode" in result.out
    assert_same_as_branchy(tmp_path / "w.folded.pt2")


def test_a_pickled_module(run: Run, tmp_path: Path) -> None:
    torch.save(branchy(), tmp_path / "net.pt")
    before = content(tmp_path)
    refused(run("fold", "net.pt", "--input", SHAPE), "a pickle can run code", "--trust-pickle")
    assert content(tmp_path) == before
    result = run("fold", "net.pt", "--input", SHAPE, "--trust-pickle")
    assert result.status == 0, result.err
    assert_same_as_branchy(tmp_path / "net.folded.pt2")


# Outputs


def test_several_outputs_and_json(run: Run, tmp_path: Path) -> None:
    result = run(
        "fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2", "-o", "b.onnx", "--json", "c.json"
    )
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"a.pt2", "b.onnx", "c.json"}
    assert_same_as_branchy(tmp_path / "a.pt2")
    convs = [n for n in onnx.load(tmp_path / "b.onnx").graph.node if n.op_type == "Conv"]
    assert [len(n.input) for n in convs] == [3]
    found = json.loads((tmp_path / "c.json").read_text())
    assert list(found) == [
        "schema",
        "name",
        "sizes",
        "before",
        "after",
        "folds",
        "refusals",
        "undone",
        "parts",
        "notes",
        "equivalence",
        "files",
    ]
    assert (found["schema"], found["name"]) == (1, "branchy")
    assert (found["before"]["batch_norm"], found["after"].get("batch_norm", 0)) == (3, 0)
    (fold,) = found["folds"]
    assert fold["operators"] == {
        "aten.batch_norm.default": 3,
        "aten.conv2d.default": 2,
        "aten.add.Tensor": 2,
    }
    assert list(fold["layers"].values()) == ["Conv2d 4 -> 4, 3x3"]
    assert 0 < fold["float64_error"] < 1e-10
    (refusal,) = found["refusals"]
    assert refusal["operator"] == "aten.mul.Tensor"
    assert found["notes"] == found["undone"] == found["parts"] == []
    assert found["equivalence"]["passed"] is True
    assert found["equivalence"]["e1"] <= found["equivalence"]["budget"]
    assert [f["path"] for f in found["files"]] == ["a.pt2", "b.onnx"]
    assert [f["equivalence"]["passed"] for f in found["files"]] == [True, True]
    assert found["files"][1]["operators"]["Conv"] == 1


def test_inspect_writes_nothing(run: Run, tmp_path: Path) -> None:
    save_exported(tmp_path / "net.pt2")
    before = content(tmp_path)
    result = run("inspect", "net.pt2")
    assert result.status == 0, result.err
    assert content(tmp_path) == before
    assert "1 fold, each proven in float64" in result.out
    assert "it multiplies two values that both depend on the network's input" in result.out
    assert "equivalent" not in result.out
    result = run("inspect", "net.pt2", "--json", "net.json")
    found = json.loads((tmp_path / "net.json").read_text())
    assert found["equivalence"] is None
    assert found["files"] == []
    assert len(found["folds"]) == 1


def test_an_older_output_is_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.pt2").write_text("old")
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2").status == 0
    assert list(content(tmp_path)) == ["out.pt2"]
    assert_same_as_branchy(tmp_path / "out.pt2")


@pytest.mark.parametrize(
    ("dynamic", "sizes"),
    [("auto", "free batch and spatial sizes"), ("batch", "free batch size"), ("none", "fixed sizes")],
)
def test_dynamic(run: Run, dynamic: str, sizes: str) -> None:
    result = run("inspect", f"{HERE}:branchy", "--input", SHAPE, "--dynamic", dynamic)
    assert f"branchy  ({sizes})" in result.out


def test_training_mode_is_said_once(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:training", "--input", SHAPE)
    assert result.status == 0
    assert result.out.count("the model was in training mode; a copy in eval mode was folded") == 1
    assert_same_as_branchy(tmp_path / "training.folded.pt2")


# Networks that fold in parts only


def test_a_network_in_parts_is_saved_whole(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:choosy", "--input", SHAPE, "--json", "c.json")
    assert result.status == 0, result.err
    assert set(content(tmp_path)) == {"choosy.folded.pt", "c.json"}
    assert "choosy  (in parts, free batch and spatial sizes)" in result.out
    assert "2 parts of the network folded, 0 left as they were" in result.out
    assert "note: the network cannot be captured as a whole: its control flow depends on" in result.out
    assert "choosy.folded.pt: equivalent: error" in result.out
    assert "holds 2 Conv2d, 1 BatchNorm2d" in result.out
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["parts"][0] == {
        "where": "wide",
        "folded": True,
        "reason": "",
        "sizes": "free batch and spatial sizes",
    }
    assert [f["path"] for f in found["files"]] == ["choosy.folded.pt"]
    loaded = torch.load(tmp_path / "choosy.folded.pt", weights_only=False)
    for sign in (1, -1):
        x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32) * sign
        with torch.no_grad():
            assert_same(choosy()(x), loaded(x), 2e-5)


@pytest.mark.parametrize("outputs", [("-o", "out.pt2"), ("-o", "out.onnx"), ("-o", "a.pt", "-o", "b.pt2")])
def test_a_network_in_parts_cannot_be_exported(run: Run, tmp_path: Path, outputs: tuple[str, ...]) -> None:
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    result = run("fold", f"{HERE}:choosy", "--input", SHAPE, *outputs, "--json", "c.json")
    assert result.status == 2
    assert "2 folds, each proven" in result.out, "the report is not lost"
    message = result.err.rpartition("reparamkit: error: ")[2]
    assert f"cannot write {outputs[-1]}: the network as a whole cannot be exported" in message
    assert f"under the suffix .pt: {Path(outputs[-1]).with_suffix('.pt')}" in message
    assert content(tmp_path) == before


def test_inspect_of_a_network_in_parts(run: Run, tmp_path: Path) -> None:
    result = run("inspect", f"{HERE}:choosy", "--input", SHAPE)
    assert result.status == 0, result.err
    assert "2 parts of the network folded" in result.out
    assert content(tmp_path) == {}


def test_a_whole_module_can_be_written_too(run: Run, tmp_path: Path) -> None:
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt", "-o", "b.pt2").status == 0
    assert set(content(tmp_path)) == {"a.pt", "b.pt2"}
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(branchy()(x), torch.load(tmp_path / "a.pt", weights_only=False)(x), 2e-5)


# Folds that were taken back


@pytest.fixture
def wrong_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms of six channels are read with another epsilon."""
    right = _READERS["aten.batch_norm.default"]

    def wrong(call: Call) -> Meaning:
        if call.value("input").shape[1] != 6:
            return right(call)
        return right(dataclasses.replace(call, arguments={**call.arguments, "eps": 0.5}))

    monkeypatch.setitem(_READERS, "aten.batch_norm.default", wrong)


@pytest.mark.usefixtures("wrong_norms")
def test_a_fold_that_was_taken_back_is_told(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:two_norms", "--input", SHAPE, "-o", "out.pt2", "--json", "c.json")
    assert result.status == 0, result.err
    assert "1 fold failed its own check and was taken back" in result.out
    assert "1 fold, each proven" in result.out
    found = json.loads((tmp_path / "c.json").read_text())
    (undone,) = found["undone"]
    assert (undone["where"], undone["operator"]) == ("4", "aten.batch_norm.default")
    assert "the float64 check failed: relative error" in undone["reason"]
    assert undone in found["refusals"]
    assert (found["before"]["batch_norm"], found["after"]["batch_norm"]) == (2, 1)
    x = noise(3, 4, 7, 6, seed=5, dtype=torch.float32)
    with torch.no_grad():
        assert_same(two_norms()(x), torch.export.load(tmp_path / "out.pt2").module()(x), 2e-5)


@pytest.mark.usefixtures("wrong_norms")
@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_strict(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    output = ("-o", "out.pt2") if command == "fold" else ()
    arguments = (f"{HERE}:two_norms", "--input", SHAPE, *output, "--json", "c.json", "--strict")
    result = run(command, *arguments)
    assert result.status == 1
    assert "1 fold failed its own check and was taken back" in result.out
    last = result.err.splitlines()[-1]
    assert last.startswith(
        "reparamkit: verification failed: 1 fold failed its own check and was taken back: 4: batch_norm "
        "'batch_norm_1': the float64 check failed: relative error"
    )
    assert content(tmp_path) == before
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_strict_where_every_fold_is_right(run: Run, command: str) -> None:
    result = run(command, f"{HERE}:two_norms", "--input", SHAPE, "--strict")
    assert result.status == 0, result.err
    assert "taken back" not in result.out


@pytest.mark.usefixtures("wrong_norms")
def test_strict_in_parts(run: Run, tmp_path: Path) -> None:
    result = run("fold", f"{HERE}:choosy_norms", "--input", SHAPE, "--strict")
    assert result.status == 1
    assert "taken back: 1.4: batch_norm" in result.err
    assert content(tmp_path) == {}


# Words


def test_models(run: Run) -> None:
    listed = run("models")
    assert listed.status == 0
    names = [line.split()[0] for line in listed.out.splitlines()[1:]]
    assert names == list(rk.models.names())
    assert {"mobileone_s0", "mobileone_s4", "repvgg_a0", "repvgg_b3g4", "repvgg_d2se"} <= set(names)
    one = run("models", "mobileone_s0")
    assert one.status == 0
    for words in (
        "5.293 M as trained",
        "2.079 M folded",
        "1x3x224x224",
        "arxiv.org/abs/",
        "reparamkit fold mobileone_s0",
    ):
        assert words in one.out
    refused(run("models", "mobileone_s9"), "no reference model named 'mobileone_s9'", "did you mean")


def test_version(run: Run) -> None:
    assert run("--version") == Result(0, f"reparamkit {rk.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ["fold", "inspect", "models", "--version", "Exit status: 0", "1 verification failed", "2"]),
        (
            ("fold",),
            [
                "SOURCE",
                "-o",
                "--output",
                "--input",
                "--model",
                "--trust-pickle",
                "--json",
                "--dynamic",
                "--strict",
            ],
        ),
        (("inspect",), ["SOURCE", "--input", "--model", "--trust-pickle", "--json", "--dynamic", "--strict"]),
        (("models",), ["NAME"]),
    ],
)
def test_help_says_it_all(run: Run, command: tuple[str, ...], words: list[str]) -> None:
    result = run(*command, "--help")
    assert result.status == 0
    assert result.err == ""
    for word in [*words, "--help"]:
        assert word in result.out
    if command:
        import typer

        parameters = typer.main.get_command(cli.app).commands[command[0]].params  # type: ignore[attr-defined]
        assert parameters
        for parameter in parameters:
            assert parameter.help
            assert " ".join(parameter.help.split()[:3]) in " ".join(result.out.split())


@pytest.mark.parametrize(
    "arguments", [(), ("fold",), ("bogus",), ("fold", "x", "--bogus"), ("fold", "a", "b")]
)
def test_usage_errors(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert "Usage: reparamkit" in result.out + result.err
    assert "Traceback" not in result.err


# Failures of verification, of ours, and of the user's patience


def test_a_failed_verification(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    (tmp_path / "out.pt2").write_text("old")
    before = content(tmp_path)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "out.pt2", "--json", "out.json")
    assert result.status == 1
    assert result.out == ""
    assert "verification failed: the folded network is not equivalent" in result.err
    assert "Traceback" not in result.err
    assert content(tmp_path) == before


@pytest.mark.parametrize("first", [(), ("-o", "a.pt2")], ids=["alone", "after another"])
def test_a_file_that_fails_its_verification(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...]
) -> None:
    from reparamkit.lower import onnx as writer

    simplified = writer._simplified

    def wrong(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
        model = simplified(model, notes)
        weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy() * 1.01
        model.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name)
        )
        return model

    monkeypatch.setattr(writer, "_simplified", wrong)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE, *first, "-o", "b.onnx", "--json", "c.json")
    assert result.status == 1
    assert "verification failed: b.onnx was not written: the file is not equivalent" in result.err
    assert "nothing written" in run("--help").out
    assert content(tmp_path) == {}


def test_an_error_of_ours(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(rk, "fold", fail, raising=False)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE)
    assert result.status == 3
    assert result.out == ""
    assert "ZeroDivisionError: ours" in result.err
    assert result.err.splitlines()[-1] == (
        "reparamkit: error: this should not have happened; please report it with the lines above"
    )
    assert content(tmp_path) == {}


def test_an_interruption(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reparamkit.lower.pt2.save_pt2", interrupted)
    result = run("fold", f"{HERE}:branchy", "--input", SHAPE)
    assert result.status == 130
    assert content(tmp_path) == {}


# Missing packages


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxsim", "onnxscript"])
def test_a_missing_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    start = time.perf_counter()
    message = refused(run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2", "-o", "b.onnx"))
    assert message == (
        f"writing ONNX needs the package '{package}', which is not installed: pip install 'reparamkit[onnx]'"
    )
    assert time.perf_counter() - start < 5, "it is known before the work starts"
    assert content(tmp_path) == {}


def test_pt2_needs_no_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "onnxsim", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run("fold", f"{HERE}:branchy", "--input", SHAPE, "-o", "a.pt2").status == 0
    assert_same_as_branchy(tmp_path / "a.pt2")


def test_siblings_are_merged_where_that_is_asked_for(run: Run) -> None:
    address = f"{HERE}:heads"
    assert "siblings" not in run("inspect", address, "--input", SHAPE).out
    result = run("fold", address, "--input", SHAPE, "--merge-siblings", "-o", "merged.onnx")
    assert result.status == 0
    assert "merged_conv: 2 siblings as one Conv2d 4 -> 6" in " ".join(result.out.split())
