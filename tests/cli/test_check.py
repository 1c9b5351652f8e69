"""`reparamkit check`: exit status, what is printed, what is written, and every input that cannot be used."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from lxml import etree
from torch import nn

from reparamkit.report.check_document import schema_text
from tests.cli.running import Result, Run, content, shell
from tests.compare import files
from tests.compare.files import IMAGE, write_onnx, write_openvino, write_pt2, write_scripted

HERE = "tests.cli.test_check"
SHAPE = ("--input", "1x3x12x10")
NET, WRONG = f"{HERE}:net", f"{HERE}:wrong"


def net() -> nn.Module:
    return files.small()


def wrong() -> nn.Module:
    return files.spoilt()


def half() -> nn.Module:
    return files.small().half()


def crashing() -> nn.Module:
    raise ValueError("no weights here")


class Nan(files.Small):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) * float("nan")


class Constant(files.Small):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.ones(image.shape[0], 5)


class Loud(files.Small):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (super().forward(image) * 1e9).softmax(1)


def saturated() -> nn.Module:
    torch.manual_seed(0)
    return Loud()


class Empty(files.Small):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image)[:, :0]


def assert_verdict(result: Result, word: str) -> list[str]:
    """The lines of a report whose verdict is this."""
    assert result.status == {"SAME": 0, "DIFFERENT": 1, "CANNOT TELL": 2}[word], result
    assert "Traceback" not in result.err
    lines = result.out.splitlines()
    assert lines[0].startswith(f"{word}: "), result
    return lines


def assert_reports(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "r.json").read_text())
    jsonschema.validate(found, json.loads(schema_text()))
    etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "schemas" / "junit.xsd"))).assertValid(
        etree.parse(str(folder / "r.xml"))
    )
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    return found


REPORTS = ("--json", "r.json", "--junit", "r.xml", "--html", "r.html")


def test_same(run: Run, tmp_path: Path) -> None:
    result = run("check", NET, NET, *SHAPE, *REPORTS)
    lines = assert_verdict(result, "SAME")
    assert lines[0] == f"SAME: {NET} against {NET}"
    assert lines[1].startswith("at worst an error of ")
    assert lines[2].startswith("judged by: error budget: four times the reference's own rounding error plus")
    assert lines[-2].startswith("seed 0, ")
    assert lines[-1] == f"again: reparamkit check {NET} {NET} {' '.join((*SHAPE, *REPORTS))} --seed 0"
    assert result.err == ""
    found = assert_reports(tmp_path)
    assert found["status"] == "same"
    assert set(content(tmp_path)) == {"r.json", "r.xml", "r.html"}


def test_different(run: Run, tmp_path: Path) -> None:
    lines = assert_verdict(run("check", NET, WRONG, *SHAPE, *REPORTS), "DIFFERENT")
    assert "of the output's scale, where" in lines[1]
    found = assert_reports(tmp_path)
    assert found["exit_status"] == 1
    assert found["reason"] == lines[1]
    assert any(" probes fail: " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nan", "is NaN or infinite everywhere, on every probe"),
        ("Empty", "is empty on every probe"),
        ("Constant", "does not depend on the input"),
        ("saturated", "is saturated"),
    ],
)
def test_cannot_tell(run: Run, tmp_path: Path, name: str, words: str) -> None:
    lines = assert_verdict(run("check", f"{HERE}:{name}", f"{HERE}:{name}", *SHAPE, *REPORTS), "CANNOT TELL")
    assert words in lines[1]
    found = assert_reports(tmp_path)
    assert found["exit_status"] == 2
    assert etree.parse(str(tmp_path / "r.xml")).findall(".//error")


@pytest.mark.slow
def test_every_kind_of_side(run: Run, tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx")
    write_openvino(tmp_path / "net.xml", tmp_path / "net.onnx")
    write_pt2(tmp_path / "net.pt2")
    write_scripted(tmp_path / "net.pt")
    torch.save(net(), tmp_path / "pickled.pt")
    for side in ("net.onnx", "net.xml", "net.pt", "net.pt2", NET):
        assert_verdict(run("check", "net.pt2", side), "SAME")
    assert_verdict(run("check", "pickled.pt", "net.pt2", "--trust-pickle"), "SAME")
    lines = assert_verdict(run("check", "pickled.pt", "net.pt2"), "CANNOT TELL")
    assert "Pass --trust-pickle" in lines[1]
    torch.save(net().state_dict(), tmp_path / "weights.pt")
    assert_verdict(run("check", "weights.pt", "net.pt2", "--model", NET), "SAME")
    assert "pass --model" in assert_verdict(run("check", "weights.pt", "net.pt2"), "CANNOT TELL")[1]
    assert_verdict(run("check", "repvgg_a0", "repvgg_a0", "--input", "1x3x32x32"), "SAME")


def test_core_ml_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.mlpackage").mkdir()
    lines = assert_verdict(run("check", NET, "net.mlpackage", *SHAPE), "CANNOT TELL")
    assert "net.mlpackage is no .mlpackage: its Manifest.json cannot be read" in lines[1]


def test_a_half_precision_candidate(run: Run) -> None:
    lines = assert_verdict(run("check", NET, f"{HERE}:half", *SHAPE), "SAME")
    assert lines[2].startswith("judged by: candidate is float16: floor 2.0e-03, plus four times the error of")


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (("--atol", "1"), "SAME"),
        (("--atol", "1e-5"), "DIFFERENT"),
        (("--rtol", "0.1", "--psnr", "30"), "SAME"),
        (("--rtol", "0.1", "--psnr", "100"), "DIFFERENT"),
        (("--cosine", "0.9", "--top1", "0.5"), "SAME"),
    ],
)
def test_limits(run: Run, limits: tuple[str, ...], word: str) -> None:
    lines = assert_verdict(run("check", NET, WRONG, *SHAPE, *limits), word)
    assert "judged by: limits given: " in "\n".join(lines)


def test_the_seed(run: Run, tmp_path: Path) -> None:
    hashes = set()
    for seed in ("0", "7", "7"):
        result = run("check", NET, NET, *SHAPE, "--seed", seed, "--json", "r.json")
        assert f"seed {seed}, " in result.out
        assert result.out.count(f"--seed {seed}") == 1
        hashes.add(json.loads((tmp_path / "r.json").read_text())["inputs_hash"])
    assert len(hashes) == 2


def test_again_can_be_pasted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(tmp_path / "my net.onnx")
    first = run("check", NET, "my net.onnx", *SHAPE)
    (line,) = [line for line in first.out.splitlines() if line.startswith("again: ")]
    program, *arguments = shlex.split(line.removeprefix("again: "))
    assert program == "reparamkit"
    assert run(*arguments).out == first.out


# Inputs from files, and files of inputs and outputs


def test_inputs_from_a_file(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=IMAGE.numpy())
    lines = assert_verdict(run("check", NET, NET, "--inputs", "x.npz"), "SAME")
    assert any(line.startswith("sample x.npz") for line in lines)
    (tmp_path / "many").mkdir()
    for number in range(2):
        torch.save((IMAGE * number,), tmp_path / "many" / f"{number}.pt")
    lines = assert_verdict(run("check", NET, NET, "--inputs", "many"), "SAME")
    assert sum(line.startswith("sample ") for line in lines) == 2


def test_inputs_and_outputs_kept_for_later(run: Run, tmp_path: Path) -> None:
    keep = ("--save-inputs", "i.npz", "--save-outputs", "o.npz", "--json", "r.json")
    assert_verdict(run("check", NET, NET, *SHAPE, *keep), "SAME")
    first = json.loads((tmp_path / "r.json").read_text())
    later = ("--reference-outputs", "o.npz", "--json", "r.json")
    for inputs in ((), ("--inputs", "i.npz"), SHAPE):
        result = run("check", "-", NET, *later, *inputs)
        assert_verdict(result, "SAME")
        assert result.err == ""
        again = json.loads((tmp_path / "r.json").read_text())
        assert again["outputs"] == first["outputs"]
        assert again["inputs_hash"] == first["inputs_hash"]
        assert again["reference"] == {"name": NET, "runner": "saved outputs", "precision": "float32"}
        assert_verdict(run("check", "-", WRONG, *later, *inputs), "DIFFERENT")
    assert_verdict(run("check", NET, WRONG, "--inputs", "i.npz"), "DIFFERENT")
    onnx = write_onnx(tmp_path / "net.onnx")
    assert_verdict(run("check", "-", onnx, *later), "SAME")


def test_other_inputs_are_refused(run: Run, tmp_path: Path) -> None:
    assert_verdict(
        run("check", NET, NET, *SHAPE, "--save-inputs", "i.npz", "--save-outputs", "o.npz"), "SAME"
    )
    assert_verdict(run("check", NET, NET, *SHAPE, "--seed", "1", "--save-inputs", "j.npz"), "SAME")
    for inputs in (("--inputs", "j.npz"), ("--input", "1x3x10x12")):
        lines = assert_verdict(run("check", "-", NET, "--reference-outputs", "o.npz", *inputs), "CANNOT TELL")
        assert "their hash on the probe" in lines[1]
    lines = assert_verdict(run("check", "-", NET, "--reference-outputs", "i.npz"), "CANNOT TELL")
    assert "i.npz is a file of probes (--save-inputs), not reference outputs" in lines[1]


def test_outputs_of_given_data_need_the_data(run: Run, tmp_path: Path) -> None:
    write_pt2(tmp_path / "net.pt2")
    keep = ("--save-inputs", "i.npz", "--save-outputs", "o.npz")
    assert_verdict(run("check", "net.pt2", NET, *keep), "SAME")
    lines = assert_verdict(run("check", "-", NET, "--reference-outputs", "o.npz"), "CANNOT TELL")
    assert "give those that --save-inputs wrote along with it (--inputs FILE)" in lines[1]
    assert_verdict(run("check", "-", NET, "--reference-outputs", "o.npz", "--inputs", "i.npz"), "SAME")


def test_outputs_are_kept_where_the_two_differ(run: Run, tmp_path: Path) -> None:
    assert_verdict(run("check", NET, WRONG, *SHAPE, "--save-outputs", "o.npz"), "DIFFERENT")
    assert_verdict(run("check", "-", NET, "--reference-outputs", "o.npz"), "SAME")


# As a program


@pytest.mark.slow
@pytest.mark.parametrize(("candidate", "status"), [("build", 0), ("wrong", 1), ("none", 2)])
def test_in_a_process_of_its_own(tmp_path: Path, candidate: str, status: int) -> None:
    (tmp_path / "my_net.py").write_text("from tests.cli.test_check import net as build, wrong\n")
    done = shell(tmp_path, f"$R check my_net:build my_net:{candidate} --input 1x3x12x10 --junit r.xml")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_what_it_is(run: Run, subtests: pytest.Subtests) -> None:
    text = run("check", "--help").out
    for word in (
        "REFERENCE",
        "CANDIDATE",
        "--reference-outputs",
        "Exit status: 0 same, 1 different, 2 cannot",
    ):
        with subtests.test(str(word)):
            assert word in text
    assert "check" in run("--help").out


def test_the_command_line_still_starts_without_torch() -> None:
    code = "import reparamkit.cli.check, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_no_back_end_is_imported_before_it_is_needed() -> None:
    heavy = ("onnx", "onnxruntime", "openvino", "rich", "jinja2", "jsonschema", "lxml")
    code = (
        "import sys, torch, torch.export, torch._export.converter\n"
        "plain = set(sys.modules)\n"
        "import reparamkit.compare.compare, reparamkit.api\n"
        "import reparamkit.report.check_html, reparamkit.report.check_junit\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - plain])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_where_it_differs_and_without(run: Run, tmp_path: Path) -> None:
    located = run("check", NET, WRONG, *SHAPE, "--json", "r.json")
    sentence = next(line for line in located.out.splitlines() if "first differs at" in line)
    assert sentence.startswith("first differs at first (convolution first): error ")
    assert json.loads((tmp_path / "r.json").read_text())["location"]["text"] == sentence
    plain = run("check", NET, WRONG, *SHAPE, "--json", "r.json", "--no-locate")
    assert plain.status == located.status == 1
    assert "first differs" not in plain.out + plain.err
    assert json.loads((tmp_path / "r.json").read_text())["location"] is None


@pytest.mark.slow
def test_where_it_cannot_be_seen_it_says_so(run: Run, tmp_path: Path) -> None:
    run("check", NET, NET, *SHAPE, "--save-outputs", "out.npz", "--save-inputs", "in.npz")
    saved = run("check", "-", WRONG, "--reference-outputs", "out.npz", "--inputs", "in.npz")
    assert saved.status == 1
    assert "not known: of the reference there are only outputs that were saved" in saved.out
    write_openvino(tmp_path / "net.xml", write_onnx(tmp_path / "net.onnx", broken=True))
    foreign = run("check", NET, "net.xml")
    assert foreign.status == 1
    assert "not known: OpenVINO does not show the values inside" in foreign.out


def test_two_onnx_files(run: Run, tmp_path: Path) -> None:
    write_onnx(tmp_path / "right.onnx")
    write_onnx(tmp_path / "wrong.onnx", broken=True)
    found = run("check", "right.onnx", "wrong.onnx")
    assert found.status == 1
    assert "first differs at first (Conv /first/Conv): error " in found.out
