"""Every input that cannot be used: one line that says what and why, status 2, and no file changed."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.running import HERE, SHAPE, Run, assert_refused, branchy, content, save_exported, shell
from tests.loading.files import Bomb

Case = tuple[Callable[[Path], tuple[Any, ...]], tuple[str, ...]]
NET = f"{HERE}:branchy"


def _file(name: str, data: bytes) -> Callable[[Path], tuple[Any, ...]]:
    def make(folder: Path) -> tuple[Any, ...]:
        (folder / name).write_bytes(data)
        return name, "--input", SHAPE

    return make


def _saved(value: Callable[[], Any], *options: str) -> Callable[[Path], tuple[Any, ...]]:
    def make(folder: Path) -> tuple[Any, ...]:
        torch.save(value(), folder / "w.pt")
        return "w.pt", *options, "--input", SHAPE

    return make


def _truncated(bytes_kept: Callable[[int], int]) -> Callable[[Path], tuple[Any, ...]]:
    def make(folder: Path) -> tuple[Any, ...]:
        path = save_exported(folder / "net.pt2")
        whole = path.read_bytes()
        path.write_bytes(whole[: bytes_kept(len(whole))])
        return ("net.pt2",)

    return make


def _zip_bomb(folder: Path) -> tuple[Any, ...]:
    with zipfile.ZipFile(folder / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"x")
        archive.writestr("bomb/data/0", bytes(100 << 20))
    return ("bomb.pt2",)


def _ill_fitting() -> dict[str, torch.Tensor]:
    state = branchy().state_dict()
    del state["wide.0.weight"]
    state["extra.weight"] = torch.ones(1)
    state["skip.bias"] = torch.ones(7)
    return state


def _pt2_of_another_shape(folder: Path) -> tuple[Any, ...]:
    save_exported(folder / "net.pt2")
    return "net.pt2", "--input", "1x5x8x8"


def _source(*arguments: str) -> Callable[[Path], tuple[Any, ...]]:
    return lambda folder: arguments


WEIGHTS = ("--model", f"{HERE}:Branchy")
CASES: dict[str, Case] = {
    "empty": (_file("e.pt", b""), ("e.pt is empty (0 bytes)", "copy, download or export it again")),
    "half a file": (_truncated(lambda size: size // 2), ("net.pt2", "truncated")),
    "nearly all of a file": (_truncated(lambda size: size - 2000), ("net.pt2", "opy or export it again")),
    "text": (
        _file("notes.pt", b"hello\nthere"),
        ("notes.pt is a text file, beginning 'hello'", "give a .pt2"),
    ),
    "zeros": (_file("z.pt", bytes(5000)), ("z.pt is a file of zeros",)),
    "noise": (_file("n.pt", b"\x01\xff\xfe\x00\x93 abc"), ("is of no known format",)),
    "zip bomb": (_zip_bomb, ("bomb.pt2", "to 100 MiB, as a zip bomb does")),
    "pickled module": (_saved(branchy), ("w.pt is a pickled module", "can run code", "--trust-pickle")),
    "raw pickle": (_file("p.pkl", pickle.dumps({"a": print})), ("a raw pickle", "--trust-pickle")),
    "weights alone": (
        _saved(lambda: branchy().state_dict()),
        ("w.pt holds weights alone (17 tensors)", "pass --model"),
    ),
    "weights that do not fit": (
        _saved(_ill_fitting, *WEIGHTS),
        (
            "do not fit the model Branchy",
            "1 missing from the weights: wide.0.weight",
            "1 not in the model: extra.weight",
            "skip.bias is 7 in the weights and 4 in the model",
        ),
    ),
    "weights of another reference model": (
        _saved(lambda: branchy().state_dict(), "--model", "repvgg_a0"),
        (
            "does not fit repvgg_a0",
            "missing from the weights: stage0.rbr_dense.conv.weight",
            "No registered variant fits it.",
        ),
    ),
    "no weights": (_saved(lambda: {"epoch": 1}, *WEIGHTS), ("no weights found", "'epoch'")),
    "an unknown model": (
        _saved(lambda: branchy().state_dict(), "--model", "mobileone_s9"),
        ("--model 'mobileone_s9'", "did you mean mobileone_s"),
    ),
    "model with a name": (_source("repvgg_a0", *WEIGHTS), ("there is no file 'repvgg_a0'",)),
    "rejected shape": (
        _source(NET, "--input", "1x5x8x8"),
        ("the model rejects the example inputs ([1, 5, 8, 8] float32)", "5 channels"),
    ),
    "rejected shape of a pt2": (_pt2_of_another_shape, ("the model rejects the example inputs",)),
    "too many inputs": (
        _source(NET, "--input", SHAPE, "--input", "2x3"),
        ("the model rejects the example inputs ([1, 4, 9, 8] float32, [2, 3] float32)", "TypeError"),
    ),
    "no shape": (
        _source(NET, "--input", "1x3xHx8"),
        ("'1x3xHx8' describes no input: sizes are numbers", "say 1x3x1x8"),
    ),
    "a size of zero": (
        _source(NET, "--input", "0x3x8x8"),
        ("'0x3x8x8' describes no input: a size of 0 shows nothing; say 1x3x8x8",),
    ),
    "a shape beyond memory": (_source(NET, "--input", "1x4x1000000x1000000"), ("1x4x1000000x1000000",)),
    "a shape beyond numbers": (_source(NET, "--input", "1x99999999999999999999"), ("99999999999999999999",)),
    "no input": (
        _source(NET),
        ("does not say what its inputs look like", "--input 1x4x224x224 (its first layer is Conv2d(4, 4"),
    ),
    "NaN and infinite weights": (
        _source(f"{HERE}:broken", "--input", SHAPE),
        ("NaN or infinite weights: wide.0.weight, skip.bias;",),
    ),
    "control flow on the data": (
        _source(f"{HERE}:Bare", "--input", SHAPE),
        ("cannot be captured as one graph: its control flow depends on the data", "torch.cond"),
    ),
    "no such file": (_source("nofile.pt"), ("no such file 'nofile.pt'",)),
    "markup": (_source("[red]:warning:[/b]"), ("no such file '[red]:warning:[/b]'",)),
    "no such module": (_source("no_such_module:net"), ("No module named 'no_such_module'",)),
    "a module without it": (_source(f"{HERE}:Missing", "--input", SHAPE), ("has no 'Missing'", "Branchy")),
    "dynamic": (_source(NET, "--input", SHAPE, "--dynamic", "all"), ("one of auto, batch and none",)),
}


@pytest.mark.parametrize("command", ["fold", "inspect"])
@pytest.mark.parametrize("case", CASES)
def test_bad_input(run: Run, tmp_path: Path, case: str, command: str) -> None:
    make, words = CASES[case]
    arguments = make(tmp_path)
    (tmp_path / "out.pt2").write_text("old")
    (tmp_path / "out.json").write_text("older")
    before = content(tmp_path)
    output = ("-o", "out.pt2") if command == "fold" else ()
    assert_refused(run(command, *arguments, *output, "--json", "out.json"), *words)
    assert content(tmp_path) == before


def test_nothing_of_a_pickle_runs_until_it_is_trusted(run: Run, tmp_path: Path) -> None:
    torch.save({"state_dict": branchy().state_dict(), "more": Bomb(tmp_path / "ran")}, tmp_path / "w.pt")
    arguments = ("fold", "w.pt", *WEIGHTS, "--input", SHAPE, "-o", "out.pt2")
    assert_refused(run(*arguments), "exec", "--trust-pickle")
    assert not (tmp_path / "ran").exists()
    assert run(*arguments, "--trust-pickle").status == 0
    assert (tmp_path / "ran").exists()


# Places that cannot be written


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("missing/out.pt2", "cannot write missing/out.pt2: the folder missing does not exist"),
        ("kept.pt2/out.pt2", "cannot write kept.pt2/out.pt2: kept.pt2 is not a folder"),
        ("folder.onnx", "cannot write folder.onnx: a folder of that name exists"),
        ("locked.pt2", "cannot write locked.pt2: the file is write-protected"),
        ("/dev/full.pt2/x.onnx", "does not exist"),
        ("net.tflite", "cannot write net.tflite: it has the suffix '.tflite'"),
        ("net", "cannot write net: it has no suffix"),
        ("own.mlpackage", "a folder of that name exists, and it is no Core ML package"),
        ("x" * 300 + ".pt2", "the name is too long"),
    ],
)
def test_outputs_that_cannot_be_written(run: Run, tmp_path: Path, output: str, words: str) -> None:
    (tmp_path / "kept.pt2").write_text("old")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "own.mlpackage").mkdir()
    (tmp_path / "own.mlpackage" / "notes").write_text("mine")
    (tmp_path / "locked.pt2").write_text("old")
    (tmp_path / "locked.pt2").chmod(0o444)
    before = content(tmp_path)
    result = run("fold", NET, "--input", SHAPE, "-o", output)
    assert_refused(result, words)
    if "too long" not in words:
        assert "folding" not in result.err, "it is known before the work starts"
    assert content(tmp_path) == before
    assert (tmp_path / "folder.onnx").is_dir()


@pytest.mark.parametrize("name", ["missing/out.json", "folder"])
@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_a_json_file_that_cannot_be_written(run: Run, tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "folder").mkdir()
    result = run(command, NET, "--input", SHAPE, "--json", name)
    assert_refused(result, f"cannot write {name}")
    assert "opening" not in result.err
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    "options",
    [
        ("-o", "c.pt2", "--json", "c.pt2"),
        ("--json", "c.pt2", "-o", "./c.pt2"),
        ("-o", "c.pt2", "-o", "c.pt2"),
        ("-o", "c.pt2", "-o", "d.onnx", "-o", "sub/../c.pt2"),
        ("--json", "branchy.folded.pt2"),
    ],
)
def test_two_outputs_of_one_name(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "sub").mkdir()
    result = run("fold", NET, "--input", SHAPE, *options)
    assert_refused(result, "is named for two outputs")
    assert "folding" not in result.err
    assert content(tmp_path) == {}


@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_json_over_the_source(run: Run, tmp_path: Path, command: str) -> None:
    save_exported(tmp_path / "net.pt2")
    (tmp_path / "link.json").symlink_to("net.pt2")
    before = content(tmp_path)
    for name in ("net.pt2", "./net.pt2", "link.json"):
        assert_refused(
            run(command, "net.pt2", "--json", name), f"--json {Path(name)} would replace the source"
        )
    assert content(tmp_path) == before


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "reparamkit.lower.pt2.save_pt2"])
def test_a_full_disk(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, old: bytes | None
) -> None:
    if old is not None:
        (tmp_path / "out.pt2").write_bytes(old)
    before = content(tmp_path)
    monkeypatch.setattr(where, full)
    result = run("fold", NET, "--input", SHAPE, "-o", "out.pt2", "--json", "out.json")
    kept = "; the file that was there is unchanged" if old else ""
    assert assert_refused(result) == (f"cannot write out.pt2: the disk is full{kept}")
    assert content(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds hardly anything."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["out.pt2", "out.onnx"])
def test_a_disk_that_is_really_full(run: Run, small_disk: Path, name: str) -> None:
    (small_disk / name).write_bytes(b"o" * 4096)
    (small_disk / "more").write_bytes(b"m" * 4096)
    before = content(small_disk)
    message = assert_refused(run("fold", NET, "--input", SHAPE, "-o", small_disk / name))
    assert message.endswith("the disk is full; the file that was there is unchanged")
    assert content(small_disk) == before
    assert sorted(f.name for f in small_disk.iterdir()) == sorted(before)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    (tmp_path / "out.pt2").write_text("old")
    done = shell(tmp_path, f"ulimit -f 8; $R fold {NET} --input {SHAPE} -o out.pt2")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "reparamkit: error: cannot write out.pt2: the file would be larger than this system allows; "
        "the file that was there is unchanged"
    )
    assert content(tmp_path) == {"out.pt2": b"old"}


def test_a_source_that_cannot_be_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_exported(tmp_path / "net.pt2")
    opened = os.open

    def denied(name: Any, *args: Any, **kwargs: Any) -> int:
        if str(name).endswith("net.pt2"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return opened(name, *args, **kwargs)

    monkeypatch.setattr("reparamkit.loading.door.files.os.open", denied)
    assert_refused(run("fold", "net.pt2"), "net.pt2 cannot be read: Permission denied")
