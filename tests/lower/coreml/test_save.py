"""Packages: what they hold, what they take, and that a wrong one never appears."""

from __future__ import annotations

import builtins
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.errors import install_line
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.coreml.toolbox import CannotConvert
from reparamkit.runners.coreml import CoreMlRunner
from tests.lower.coreml.nets import IMAGE, branches, files_of, folded, operations, spec_of
from tests.nets import randomised


@pytest.fixture(scope="module")
def network() -> rk.Folded:
    return folded(branches())


def _shape_of(path: Path) -> tuple[list[int], list[tuple[int, int]], list[list[int]]]:
    array = spec_of(path).description.input[0].type.multiArrayType
    return (
        list(array.shape),
        [(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges],
        [list(shape.shape) for shape in array.enumeratedShapes.shapes],
    )


def test_a_flexible_package_is_verified_at_other_sizes_and_nothing_is_said(
    tmp_path: Path, network: rk.Folded, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path)
    assert capfd.readouterr() == ("", "")
    assert saved.path == path
    assert saved.equivalence.passed
    assert any("batch=3" in entry.probe and "height" in entry.probe for entry in saved.equivalence.outputs)
    assert _shape_of(path) == ([1, 3, 32, 32], [(1, 64), (3, 3), (1, 256), (1, 256)], [])
    assert saved.operators == {"conv": 2, "relu": 2, "reduce_mean": 1, "linear": 1}
    assert saved.operators["conv"] == network.after["conv2d"]
    assert saved.notes[0] == "for iOS17 and later, in float32; image: 1..64x3x1..256x1..256"
    assert "not with 2.13" in saved.notes[1]
    assert len(saved.notes) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]


class Branching(nn.Module):
    """Another network for heights above 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(image))
        return found * 2 if image.shape[2] > 10 else found


@pytest.mark.parametrize("image", [None, rk.ImageInput()], ids=["tensor", "image"])
def test_a_package_cannot_refuse_a_size_so_none_is_free_that_matters(
    tmp_path: Path, image: rk.ImageInput | None
) -> None:
    network = rk.fold(randomised(Branching()).eval(), torch.randn(1, 3, 8, 8))
    (saved,) = network.save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=image))
    assert saved.notes[0].startswith("the height is fixed, because the file cannot refuse a size")
    assert "x3x8x1..64" in saved.notes[1]


def test_names_are_the_network_s_own(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    network.save(path)
    described = spec_of(path).description
    assert [each.name for each in described.input] == ["image"]
    assert [each.name for each in described.output] == ["output"]
    found = operations(path)
    assert found[:2] == [("conv", "stem"), ("relu", "relu")]
    assert ("linear", "output") in found


def test_a_package_says_what_it_is_and_nothing_of_this_machine(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    network.save(path, coreml=CoreMlOptions(metadata={"project": "birds"}))
    metadata = spec_of(path).description.metadata
    said = dict(metadata.userDefined)
    assert said["project"] == "birds"
    assert said["reparamkit.version"] == rk.__version__
    assert len(said["reparamkit.source_sha256"]) == 64
    assert said["reparamkit.folds"] == str(len(network.folds))
    assert json.loads(said["reparamkit.before"])["batch_norm"] == 3
    assert "batch_norm" not in json.loads(said["reparamkit.after"])
    assert "com.github.apple.coremltools.conversion_date" not in said
    assert metadata.author == ""
    assert "Folded by reparamkit" in metadata.shortDescription
    for content in files_of(path).values():
        for secret in (str(Path(__file__).parents[3]), sys.prefix, "stack_trace"):
            assert secret.encode() not in content


@pytest.mark.slow
def test_the_same_network_becomes_the_same_bytes(tmp_path: Path, network: rk.Folded) -> None:
    network.save(tmp_path / "a.mlpackage")
    folded(branches()).save(tmp_path / "b.mlpackage")
    first, second = files_of(tmp_path / "a.mlpackage"), files_of(tmp_path / "b.mlpackage")
    assert first == second
    assert set(first) == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }
    other = folded(randomised(branches(), 7))
    other.save(tmp_path / "c.mlpackage")
    key = "reparamkit.source_sha256"
    hashes = [spec_of(tmp_path / f"{name}.mlpackage").description.metadata.userDefined[key] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_permissions_are_those_of_new_files(tmp_path: Path, network: rk.Folded) -> None:
    (tmp_path / "plain").write_text("x")
    network.save(tmp_path / "net.mlpackage")
    wanted = (tmp_path / "plain").stat().st_mode & 0o777
    assert {
        file.stat().st_mode & 0o777 for file in (tmp_path / "net.mlpackage").rglob("*.*") if file.is_file()
    } == {wanted}


def test_fixed_sizes(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path, coreml=CoreMlOptions(sizes="fixed"))
    assert _shape_of(path) == ([1, 3, 32, 32], [], [])
    assert not any("batch=" in entry.probe for entry in saved.equivalence.outputs)
    runner = CoreMlRunner(path)
    assert not runner.accepts((torch.zeros(1, 3, 40, 40),), {})


def test_one_other_shape(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path, coreml=CoreMlOptions(sizes=((2, 3, 24, 40),)))
    assert _shape_of(path) == ([2, 3, 24, 40], [], [])
    assert saved.equivalence.passed


def test_listed_shapes_are_each_verified(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path, coreml=CoreMlOptions(sizes=((1, 3, 32, 48), (1, 3, 64, 32))))
    shape, ranges, listed = _shape_of(path)
    assert shape == [1, 3, 32, 48]
    assert ranges == []
    assert sorted(listed) == [[1, 3, 32, 48], [1, 3, 64, 32]]
    assert {"example", "shape 1x3x64x32"} <= {entry.probe for entry in saved.equivalence.outputs}
    assert saved.notes[0].endswith("image: 1x3x32x48 or 1x3x64x32")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (((1, 3, 32),), "the shape 1x3x32 has 3 axes, and the network's input has 4"),
        (((1, 3, 32, 32), (1, 4, 32, 32)), "differ in axis 1, whose size the network fixes at 3"),
        (((1, 4, 32, 32),), "does not take this size"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, network: rk.Folded, sizes: Any, words: str) -> None:
    with pytest.raises(rk.UnusableInput, match=words):
        network.save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(sizes=sizes))
    assert list(tmp_path.iterdir()) == []


def test_float16_is_judged_as_float16(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path, coreml=CoreMlOptions(precision="float16", target="ios16"))
    assert CoreMlRunner(path).precision == "float16"
    assert any(note.startswith("candidate is float16: floor 2.0e-03") for note in saved.equivalence.notes)
    assert 1e-5 < saved.equivalence.e1 < 1e-2
    described = spec_of(path)
    assert described.specificationVersion == 7
    assert described.description.input[0].type.multiArrayType.dataType == 65568  # FLOAT32
    small = sum(map(len, files_of(path).values()))
    network.save(path)
    assert small < sum(map(len, files_of(path).values()))


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(("target", "version"), [("iOS15", 6), ("iOS18", 9), ("macOS26", 10)])
def test_other_targets(tmp_path: Path, network: rk.Folded, target: str, version: int) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path, coreml=CoreMlOptions(target=target, precision="float16"))
    assert saved.equivalence.passed
    assert spec_of(path).specificationVersion == version


def test_a_convolution_of_constants_is_computed_beforehand(tmp_path: Path) -> None:
    class Encoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.encoding = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.register_buffer("places", torch.randn(1, 3, 32, 32))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).relu() + self.encoding(self.places)

    network = folded(Encoded().eval())
    assert network.after["conv2d"] == 1
    (saved,) = network.save(tmp_path / "net.mlpackage")
    assert saved.operators["conv"] == 1


@pytest.mark.slow
def test_some_of_it_stays_in_float32(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    options = CoreMlOptions(precision="float16", keep_float32=("stem",))
    (saved,) = network.save(path, coreml=options)
    names = [name for kind, name in operations(path) if kind == "conv"]
    assert names == ["stem", "reparam_conv_cast_fp16"]
    assert "1 of 6 operators stay in float32: stem" in saved.notes
    with pytest.raises(
        rk.UnusableInput, match=r"nothing in the folded network matches 'stam', .*there are stem,"
    ):
        network.save(path, coreml=CoreMlOptions(precision="float16", keep_float32=("stam",)))


@pytest.mark.slow
def test_float16_of_a_network_that_is_all_noise_is_refused(tmp_path: Path) -> None:
    class Cancelling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.sin() + 1000) - 1000

    with pytest.raises(rk.UnusableInput, match="in float16 cannot be told: its own rounding errors"):
        folded(Cancelling()).save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(precision="float16"))
    assert list(tmp_path.iterdir()) == []


def test_a_classifier(tmp_path: Path, network: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    labels = ("crow", "raven", "rook", "jay", "magpie")
    (saved,) = network.save(path, coreml=CoreMlOptions(labels=labels, sizes="fixed"))
    assert saved.operators["classify"] == 1
    described = spec_of(path).description
    assert [each.name for each in described.output] == ["classLabel", "classLabel_probs"]
    assert described.predictedFeatureName == "classLabel"
    with pytest.raises(rk.UnusableInput, match="there are 4 labels, and the network has 5 classes"):
        network.save(path, coreml=CoreMlOptions(labels=labels[:4]))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor, scale: Tensor, ids: Tensor) -> dict[str, object]:
            y = self.conv(image)
            return {"map": (y, y * scale), "labels": y.argmax(1), "ids": ids + 1}

    inputs = {"image": IMAGE, "scale": torch.ones(1), "ids": torch.arange(6).view(1, 6)}
    path = tmp_path / "heads.mlpackage"
    (saved,) = folded(Heads().eval(), inputs).save(path)
    assert saved.equivalence.passed
    described = spec_of(path).description
    assert [each.name for each in described.input] == ["image", "scale", "ids"]
    assert [each.name for each in described.output] == ["map_0", "map_1", "labels", "ids_2"]


def test_an_output_that_is_an_input_or_given_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = x.relu()
            return y, y, x

    (saved,) = folded(Twice()).save(tmp_path / "net.mlpackage")
    assert saved.equivalence.passed


@pytest.mark.slow
def test_a_wrong_package_never_appears_and_the_old_one_stays(
    tmp_path: Path, network: rk.Folded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reparamkit.lower.coreml import prepare

    path = tmp_path / "net.mlpackage"
    network.save(path)
    before = files_of(path)

    def off(graph: torch.fx.Graph) -> None:
        node = next(n for n in graph.nodes if n.target is torch.ops.aten.relu.default)
        node.target = torch.ops.aten.sigmoid.default

    monkeypatch.setattr(prepare, "MENDS", (*prepare.MENDS, off))
    with pytest.raises(
        rk.NotEquivalent, match=r"net\.mlpackage was not written: the package is not equivalent"
    ):
        network.save(path)
    assert files_of(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]


@pytest.mark.slow
def test_flexible_sizes_that_compute_something_else_fall_back_to_fixed_ones(
    tmp_path: Path, network: rk.Folded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a converter that bakes the example's size into a flexible program would do."""
    from reparamkit.lower.coreml import save as saving

    judged = saving._judged

    def wrong(reference: Any, runner: Any, sizes: Any, precision: str) -> Any:
        verdict = judged(reference, runner, sizes, precision)
        if any(not isinstance(axis, int) for each in sizes for axis in each.axes):
            object.__setattr__(verdict, "passed", False)
        return verdict

    monkeypatch.setattr(saving, "_judged", wrong)
    path = tmp_path / "net.mlpackage"
    (saved,) = network.save(path)
    assert _shape_of(path) == ([1, 3, 32, 32], [], [])
    assert saved.notes[0].startswith("flexible sizes could not be kept: ")


def test_what_coremltools_cannot_convert(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(CannotConvert, match=r"coremltools cannot convert this network: .*bessel_j0"):
        folded(Odd()).save(tmp_path / "net.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_other_types_than_float32_are_refused(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(rk.UnusableInput, match=f"are made of float32 networks, and here '.*' is {name}"):
            folded(branches().to(dtype), IMAGE.to(dtype)).save(tmp_path / "net.mlpackage")


@pytest.mark.slow
def test_all_files_or_none(tmp_path: Path, network: rk.Folded) -> None:
    with pytest.raises(rk.UnusableInput):
        network.save(tmp_path / "net.mlpackage", tmp_path / "net.pt2", tmp_path / "missing" / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    saved = network.save(tmp_path / "net.mlpackage", tmp_path / "net.onnx", tmp_path / "net.pt2")
    assert [each.path.suffix for each in saved] == [".mlpackage", ".onnx", ".pt2"]


def test_coremltools_is_not_installed(
    tmp_path: Path, network: rk.Folded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(real: Callable[..., Any]) -> Callable[..., Any]:
        def imported(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.split(".")[0] == "coremltools":
                raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")
            return real(name, *args, **kwargs)

        return imported

    monkeypatch.setattr(builtins, "__import__", without(builtins.__import__))
    with pytest.raises(rk.MissingExtra, match=re.escape(install_line("coreml"))):
        network.save(tmp_path / "net.mlpackage")


def test_a_numpy_that_coremltools_fails_with(
    tmp_path: Path, network: rk.Folded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy

    monkeypatch.setattr(numpy, "__version__", "2.4.1")
    with pytest.raises(rk.UnusableInput, match=r"needs a numpy before 2\.4"):
        network.save(tmp_path / "net.mlpackage")
