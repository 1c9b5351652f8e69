"""What `reparamkit check` cannot use: named, reported, and nothing lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.running import Run, assert_refused, content
from tests.cli.test_check import HERE, NET, REPORTS, SHAPE, assert_reports, assert_verdict
from tests.compare.files import IMAGE, write_onnx
from tests.loading.files import Bomb


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NET, NET), "says what its inputs look like; describe them, for instance --input 1x3x224x224"),
        (("nowhere.onnx", NET, *SHAPE), "there is no file nowhere.onnx"),
        ((NET, "nowhere.xml", *SHAPE), "there is no file nowhere.xml"),
        ((NET, "nowhere", *SHAPE), "'nowhere' is no file and not the name of a reference model"),
        ((NET, f"{HERE}:missing", *SHAPE), f"the module {HERE} has no 'missing'"),
        ((NET, f"{HERE}:crashing", *SHAPE), "raised ValueError: no weights here"),
        ((NET, f"{HERE}:SHAPE", *SHAPE), "it has to be a torch.nn.Module"),
        ((NET, "empty.onnx", *SHAPE), "empty.onnx is empty (0 bytes)"),
        ((NET, "text.pt", *SHAPE), "text.pt is a text file"),
        ((NET, NET, "--input", "1x4x12x10"), "the model rejects the example inputs"),
        (
            (NET, NET, "--input", "pixels:1x3x12x10"),
            "there is no input 'pixels'; the reference's inputs are image",
        ),
        ((NET, NET, *SHAPE, *SHAPE), "the model rejects the example inputs"),
        ((NET, NET, "--inputs", "no.npz"), "there is no file or folder no.npz"),
        ((NET, NET, "--inputs", "text.pt"), "text.pt is no file of torch.save, or damaged"),
        ((NET, NET, "--inputs", "bomb.pt"), "bomb.pt holds more than tensors"),
        ((NET, NET, "--inputs", "keys.npz"), "holds the arrays 'wrong'; the network's inputs are image"),
        ((NET, NET, "--inputs", "shape.npz"), "the model rejects the example inputs"),
        ((NET, NET, "--inputs", "dtype.npz"), "the model rejects the example inputs"),
        ((NET, NET, "--inputs", "keys.npz", *SHAPE), "inputs are given twice"),
        (("-", NET, "--reference-outputs", "no.npz"), "there is no file no.npz"),
        (("-", NET, "--reference-outputs", "keys.npz"), "--save-outputs did not write it"),
        (("-", NET, "--reference-outputs", "text.pt"), "text.pt cannot be read"),
    ],
)
def test_cannot_be_told_and_is_reported(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.pt").write_text("nothing of the kind")
    torch.save(Bomb(tmp_path / "marker"), tmp_path / "bomb.pt")
    np.savez(tmp_path / "keys.npz", wrong=IMAGE.numpy())
    np.savez(tmp_path / "shape.npz", image=np.ones((1, 3), np.float32))
    np.savez(tmp_path / "dtype.npz", image=np.ones((1, 3, 12, 10), np.int64))
    keep = ("--save-inputs", "i.npz", "--save-outputs", "o.npz")
    lines = assert_verdict(run("check", *arguments, *REPORTS, *keep), "CANNOT TELL")
    assert words in lines[1]
    found = assert_reports(tmp_path)
    assert found["reason"] == lines[1]
    assert not {"i.npz", "o.npz", "marker"} & set(content(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (NET, NET, "--input", "1xx3"),
            "'1xx3' describes no input: the sizes of all axes go with x between them; say 1x3",
        ),
        ((NET, NET, "--input", "1x3:int64"), "integers need a range"),
        ((NET, NET, *SHAPE, "--atol", "-1"), "--atol -1 is no limit"),
        ((NET, NET, *SHAPE, "--cosine", "nan"), "--cosine nan is no limit"),
        ((NET, NET, *SHAPE, "--top1", "95"), "--top1 95 is no limit: it is a finite number between 0 and 1"),
        (("-", NET, *SHAPE), "REFERENCE is '-' exactly where --reference-outputs FILE stands in for it"),
        ((NET, NET, "--reference-outputs", "o.npz"), "give '-' in place of"),
        ((NET, NET, *SHAPE, "--json", "no/r.json"), "the folder no does not exist"),
        ((NET, NET, *SHAPE, "--save-inputs", "no/i.npz"), "the folder no does not exist"),
        ((NET, NET, *SHAPE, "--junit", "r", "--html", "r"), "r is named for two outputs"),
        ((NET, "old.onnx", *SHAPE, "--json", "old.onnx"), "old.onnx would replace old.onnx, which is read"),
        (
            (NET, NET, "--inputs", "old.npz", "--save-inputs", "old.npz"),
            "would replace old.npz, which is read",
        ),
        ((NET, NET, *SHAPE, "--html", "folder"), "a folder of that name exists"),
    ],
)
def test_bad_arguments_write_nothing(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    for name in ("old.onnx", "old.npz", "r.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "folder").mkdir()
    before = content(tmp_path)
    assert_refused(run("check", *arguments), words)
    assert content(tmp_path) == before


def test_what_was_kept_before_survives_a_failure(run: Run, tmp_path: Path) -> None:
    keep = ("--save-inputs", "i.npz", "--save-outputs", "o.npz")
    assert_verdict(run("check", NET, NET, *SHAPE, *keep), "SAME")
    before = content(tmp_path)
    assert_verdict(run("check", NET, "nowhere", *SHAPE, *keep), "CANNOT TELL")
    assert_verdict(run("check", NET, NET, "--input", "1x4x12x10", *keep), "CANNOT TELL")
    assert content(tmp_path) == before


def test_an_old_report_does_not_outlive_what_it_says(run: Run, tmp_path: Path) -> None:
    assert_verdict(run("check", NET, NET, *SHAPE, *REPORTS), "SAME")
    assert_verdict(run("check", NET, "nowhere", *SHAPE, *REPORTS), "CANNOT TELL")
    assert assert_reports(tmp_path)["status"] == "cannot tell"


def test_a_disk_that_is_full(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.npz").write_text("old")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    result = run("check", NET, NET, *SHAPE, "--save-outputs", "o.npz")
    assert_refused(result, "cannot write o.npz: the disk is full; the file that was there is unchanged")
    assert content(tmp_path) == {"o.npz": b"old"}


def test_names_that_are_no_text(run: Run, tmp_path: Path) -> None:
    name = "net\udcff.onnx"
    write_onnx(tmp_path / name)
    lines = assert_verdict(run("check", NET, name, *SHAPE, *REPORTS), "CANNOT TELL")
    assert lines[0] == f"CANNOT TELL: net?.onnx against {NET}"
    assert "ONNX Runtime cannot open net?.onnx" in lines[1]
    assert_reports(tmp_path)
