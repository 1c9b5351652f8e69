"""Core ML packages from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.running import Run, assert_refused, content, shell
from tests.lower.coreml.nets import branches, operations, spec_of

HERE = "tests.cli.test_coreml"
NET = f"{HERE}:image_net"
SHAPE = "1x3x32x32"
FOLD = ("fold", NET, "--input", SHAPE, "-o", "net.mlpackage")


def image_net() -> nn.Module:
    torch.manual_seed(0)
    return branches()


@pytest.mark.slow
def test_a_package_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(f"from {HERE} import image_net as build\n")
    done = shell(tmp_path, f"$R fold my_net:build --input {SHAPE} -o net.mlpackage --json net.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("net.mlpackage: equivalent: error ") for line in lines)
    assert "  holds 2 conv, 2 relu, 1 reduce_mean, 1 linear" in lines
    assert "  note: for iOS17 and later, in float32; image: 1..64x3x1..256x1..256" in lines
    assert done.stderr == ""
    (file,) = json.loads((tmp_path / "net.json").read_text())["files"]
    assert file["operators"]["conv"] == 2
    assert file["equivalence"]["passed"] is True
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "__pycache__") == [
        "my_net.py",
        "net.json",
        "net.mlpackage",
    ]


def test_every_option(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    result = run(
        *FOLD,
        *("--coreml-target", "iOS16", "--coreml-precision", "float16", "--coreml-labels", "labels.txt"),
        *("--coreml-sizes", "1x3x32x32,1x3x48x64", "--coreml-keep-float32", "head"),
        *("--image-input", "--image-scale", "255", "--image-mean", "0.485,0.456,0.406"),
        *("--image-std", "0.229,0.224,0.225", "--image-colour", "bgr"),
    )
    assert result.status == 0, result.err
    assert "for iOS16 and later, in float16; image: 1x3x32x32 or 1x3x48x64" in result.out
    assert "weights rounded to float16" in result.out
    assert "1 of 6 operators stay in float32: head" in result.out
    spec = spec_of(tmp_path / "net.mlpackage")
    assert spec.specificationVersion == 7
    assert spec.description.input[0].type.imageType.colorSpace == 30
    assert [each.name for each in spec.description.output] == ["classLabel", "classLabel_probs"]
    assert json.loads(spec.description.metadata.userDefined["reparamkit.image"])["std"] == [
        0.229,
        0.224,
        0.225,
    ]
    assert ("linear", "output") in operations(tmp_path / "net.mlpackage")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--coreml-target", "iOS9"), "'iOS9' is no Core ML deployment target of ML programs"),
        (("--coreml-precision", "int8"), "is float32 or float16, not 'int8'"),
        (("--coreml-sizes", "1x3xA"), "'1x3xA' is not a shape"),
        (("--coreml-labels", "missing.txt"), "the labels cannot be read from missing.txt: No such file"),
        (("--coreml-keep-float32", "auto"), "can only be chosen where the precision is float16"),
        (("--image-mean", "0.5"), "--image-mean is for an image input: give --image-input too"),
        (("--image-input", "--image-mean", "a,b"), "--image-mean a,b: write one number, or one per channel"),
        (("--image-input", "--image-std", "1,2"), "the std of an image input has 2 numbers"),
        (("--image-input", "--image-colour", "hsv"), "is rgb, bgr or gray, not 'hsv'"),
    ],
)
def test_options_that_make_no_sense(run: Run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = run(*FOLD, *options)
    assert_refused(result, words)
    assert "folding" not in result.err, "it is known before the work starts"
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--coreml-target", "iOS17"),
        ("--coreml-precision", "float16"),
        ("--coreml-sizes", "fixed"),
        ("--coreml-labels", "labels.txt"),
        ("--coreml-keep-float32", "auto"),
        ("--image-input",),
        ("--image-scale", "255"),
    ],
)
@pytest.mark.parametrize("output", [(), ("-o", "net.onnx")])
def test_options_without_a_package(run: Run, options: tuple[str, ...], output: tuple[str, ...]) -> None:
    result = run("fold", NET, "--input", SHAPE, *output, *options)
    assert_refused(result, f"{options[0]} is for an .mlpackage, and no output is one: give -o FILE.mlpackage")
    assert "folding" not in result.err


def test_labels_that_do_not_fit(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    assert_refused(
        run(*FOLD, "--coreml-labels", "labels.txt"), "there are 2 labels, and the network has 5 classes"
    )
    assert set(content(tmp_path)) == {"labels.txt"}


def test_a_package_replaces_an_older_one_and_checks_against_its_source(run: Run, tmp_path: Path) -> None:
    for options in ((), ("--coreml-sizes", "fixed")):
        assert run(*FOLD, *options).status == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]
    result = run("check", NET, "net.mlpackage", "--input", SHAPE)
    assert result.status == 0, result
    assert result.out.startswith("SAME: net.mlpackage against ")


def test_a_network_in_parts_is_no_package(run: Run, tmp_path: Path) -> None:
    result = run("fold", "tests.cli.running:choosy_norms", "--input", "1x4x9x8", "-o", "net.mlpackage")
    assert result.status == 2
    assert "cannot write net.mlpackage: the network as a whole cannot be exported" in result.err
    assert content(tmp_path) == {}


def test_images_go_into_what_a_pt2_is_made_into(run: Run, tmp_path: Path) -> None:
    """torch.export's modules let nobody set their mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 9, 8),)), tmp_path / "net.pt2")
    result = run("fold", "net.pt2", "-o", "net.mlpackage", "--image-input", "--image-mean", "0.5,0.4,0.3")
    assert result.status == 0, result.err
    assert "net.mlpackage: equivalent" in result.out
