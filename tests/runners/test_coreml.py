"""Core ML files as runners: what they declare, take and give, and what cannot be run."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.compare.compare import compare
from reparamkit.errors import UnusableInput
from reparamkit.runners.base import (
    BoundsSizes,
    DeclaresInputs,
    InputSpec,
    Jitterable,
    Runner,
    StatesPrecision,
)
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.runners.open import NATIVE, open_foreign, open_runner
from reparamkit.support.garbage import only_new_garbage
from reparamkit.support.quiet import quiet
from tests.compare.files import IMAGE, small, write_pt2
from tests.mil.programs import array, ct, mb, normal, save

WEIGHT = array(4, 3, 3, 3)


def _layer(x: Any) -> Any:
    return mb.relu(x=mb.conv(x=x, weight=WEIGHT, name="layer"), name="y")


def _convert(path: Path, *, half: bool = False, **settings: Any) -> Path:
    """The small network as coremltools converts it."""
    program = torch.export.export(small(), (IMAGE,)).run_decompositions({})
    with quiet(), only_new_garbage():
        made = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
            **settings,
        )
        made.save(str(path))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _convert(tmp_path_factory.mktemp("coreml") / "net.mlpackage")


def test_a_converted_network_runs(whole: Path) -> None:
    runner = open_runner(whole)
    assert isinstance(runner, CoreMlRunner)
    for protocol in (Runner, DeclaresInputs, StatesPrecision, BoundsSizes):
        assert isinstance(runner, protocol)
    assert runner.declared == [InputSpec("image", (1, 3, 12, 10), torch.float32, (1, 3, 12, 10))]
    assert (runner.precision, runner.structured) == ("float32", False)
    assert runner.operators["conv"] == 2
    ((name, found),) = runner.run((IMAGE,), {})
    assert [name] == runner.output_names
    wanted = small()(IMAGE).detach()
    assert float((found - wanted).abs().max()) < 1e-6 * float(wanted.abs().max()) + 1e-7
    assert not found.requires_grad
    exact = CoreMlRunner(whole, torch.float64).run((), {"image": IMAGE})[0][1]
    truth = small().double()(IMAGE.double()).detach()
    assert float((exact - truth).abs().max()) < 1e-12


def test_jittered_weights_move_the_output_a_little(whole: Path) -> None:
    runner = CoreMlRunner(whole)
    assert isinstance(runner, Jitterable)
    own = runner.run((IMAGE,), {})[0][1]
    moved = runner.jittered(0).run((IMAGE,), {})[0][1]
    assert 0 < float((moved - own).abs().max()) < 1e-5
    assert torch.equal(runner.jittered(0).run((IMAGE,), {})[0][1], moved)
    assert torch.equal(runner.run((IMAGE,), {})[0][1], own)


def test_float16(tmp_path: Path) -> None:
    runner = CoreMlRunner(_convert(tmp_path / "half.mlpackage", half=True))
    assert runner.precision == "float16"
    ((_, found),) = runner.run((IMAGE,), {})
    wanted = small()(IMAGE).detach()
    error = float((found.float() - wanted).abs().max()) / float(wanted.abs().max())
    assert found.dtype is torch.float16
    assert 1e-6 < error < 2e-3


def test_the_command_line_compares_it(whole: Path, tmp_path: Path) -> None:
    same = compare(write_pt2(tmp_path / "net.pt2", free=False), str(whole) + "/").comparison
    assert same.status == "same", same.reason
    assert same.candidate.runner == "Core ML program, evaluated"
    assert "coremltools" in same.versions
    other = compare(write_pt2(tmp_path / "other.pt2", free=False, broken=True), whole).comparison
    assert other.status == "different"


def test_sizes_of_a_range(tmp_path: Path) -> None:
    x = normal(1, 3, 8, 9)
    shape = ct.Shape((1, 3, ct.RangeDim(5, 20, default=8), ct.RangeDim(5, 40, default=9)))
    path = _symbolic(tmp_path / "net.mlpackage", shape)
    runner = CoreMlRunner(path)
    assert runner.declared == [InputSpec("x", (1, 3, "x[2]", "x[3]"), torch.float32, (1, 3, 8, 9))]
    assert runner.ranges == {"x[2]": (5, 20), "x[3]": (5, 40)}
    assert runner.run((x,), {})[0][1].shape == (1, 4, 6, 7)
    assert runner.run((normal(1, 3, 20, 31),), {})[0][1].shape == (1, 4, 18, 29)
    message = r"input 'x' of net.mlpackage takes 1x3x\(5 to 20\)x\(5 to 40\), not 1x3x21x9"
    with pytest.raises(UnusableInput, match=message):
        runner.run((normal(1, 3, 21, 9),), {})
    assert not runner.accepts((normal(2, 3, 8, 9),), {})
    found = compare(_Conv(), path, inputs=x).comparison
    assert found.status == "same", found.reason
    tried = [probe.sizes for probe in found.probes if probe.sizes]
    assert tried
    assert all(size >= 5 for sizes in tried for size in sizes.values())


def test_sizes_that_are_listed(tmp_path: Path) -> None:
    listed = [(1, 3, 8, 8), (1, 3, 12, 16), (1, 3, 10, 7)]
    path = _symbolic(tmp_path / "net.mlpackage", ct.EnumeratedShapes(listed, default=listed[0]))
    runner = CoreMlRunner(path)
    assert runner.declared[0].shape == (1, 3, "x[2]", "x[3]")
    assert runner.listed == {"x": tuple(sorted(listed))}
    assert runner.run((normal(1, 3, 12, 16),), {})[0][1].shape == (1, 4, 10, 14)
    with pytest.raises(UnusableInput, match="takes 1x3x8x8 or 1x3x10x7 or 1x3x12x16, not 1x3x12x8"):
        runner.run((normal(1, 3, 12, 8),), {})
    found = compare(_Conv(), path).comparison
    assert found.status == "same", found.reason
    assert {tuple(probe.sizes.values()) for probe in found.probes if probe.sizes} == {(12, 16), (10, 7)}


class _Conv(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, torch.from_numpy(WEIGHT)).relu()


def _symbolic(path: Path, shape: Any) -> Path:
    with quiet(), only_new_garbage():
        made = ct.convert(
            torch.jit.trace(_Conv(), normal(1, 3, 8, 8)),
            inputs=[ct.TensorType("x", shape)],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        made.save(str(path))
    return path


def test_integers_are_narrowed_and_booleans_become_numbers(tmp_path: Path) -> None:
    ids = torch.tensor([[3, 1, 2]], dtype=torch.int32)
    path = save(lambda ids: mb.gather(x=array(5, 4), indices=ids), {"ids": ids}, tmp_path / "ids.mlpackage")
    runner = CoreMlRunner(path)
    assert runner.declared[0].dtype is torch.int32
    ((_, found),) = runner.run((ids.long(),), {})
    assert torch.equal(found, torch.from_numpy(array(5, 4))[ids.long()])
    with pytest.raises(
        UnusableInput, match=r"input 'ids' of ids.mlpackage is int32, and a value is too large"
    ):
        runner.run((ids.long() + 2**31,), {})
    with pytest.raises(UnusableInput, match=r"is torch.int32, the reference takes torch.float32"):
        runner.run((ids.float(),), {})
    mask = save(lambda m: mb.mul(x=m, y=np.float32(2)), {"m": torch.ones(3)}, tmp_path / "m.mlpackage")
    assert CoreMlRunner(mask).run((torch.tensor([True, False, True]),), {})[0][1].tolist() == [2, 0, 2]


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(("layout", "channels"), [("RGB", 3), ("BGR", 3), ("GRAYSCALE", 1)])
def test_image_inputs_are_pixels(tmp_path: Path, layout: str, channels: int) -> None:
    weight = array(2, channels, 1, 1)
    shift = -1.0 if channels == 1 else [-1.0] * channels
    colours = getattr(ct.colorlayout, layout)
    image = ct.ImageType("picture", (1, channels, 4, 5), scale=1 / 64, bias=shift, color_layout=colours)

    class Net(torch.nn.Module):
        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(picture, torch.from_numpy(weight))

    with quiet(), only_new_garbage():
        traced = torch.jit.trace(Net(), torch.rand(1, channels, 4, 5))
        made = ct.convert(traced, inputs=[image], convert_to="mlprogram", skip_model_load=True)
        made.save(str(tmp_path / "net.mlpackage"))
    runner = CoreMlRunner(tmp_path / "net.mlpackage")
    shape = (1, channels, 4, 5)
    assert runner.declared == [InputSpec("picture", shape, torch.float32, shape)]
    assert runner.program.inputs[0].image == layout
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()
    ((_, found),) = runner.run((pixels,), {})
    wanted = Net()(pixels / 64 - 1)
    assert float((found.float() - wanted).abs().max()) < 5e-3 * float(wanted.abs().max())


def test_a_classifier_gives_its_probabilities(tmp_path: Path) -> None:
    weight = array(3, 4)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x @ torch.from_numpy(weight).T, -1)

    x = normal(1, 4)
    with quiet(), only_new_garbage():
        made = ct.convert(
            torch.jit.trace(Net(), x),
            inputs=[ct.TensorType("x", (1, 4))],
            classifier_config=ct.ClassifierConfig(["cat", "dog", "mule"]),
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        made.save(str(tmp_path / "net.mlpackage"))
    runner = CoreMlRunner(tmp_path / "net.mlpackage")
    assert runner.program.labels == ("cat", "dog", "mule")
    ((name, found),) = runner.run((x,), {})
    assert runner.output_names == [name]
    assert name != "classLabel"
    assert torch.allclose(found, Net()(x), atol=1e-6)


def test_an_operator_that_is_lacking_is_named(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        y = mb.random_normal(shape=[2, 3], mean=0.0, stddev=1.0, seed=1, name="noise")
        z = mb.random_uniform(shape=[2, 3], low=0.0, high=1.0, seed=1, name="more")
        return mb.add(x=mb.add(x=x, y=y), y=z)

    path = save(build, {"x": normal(2, 3)}, tmp_path / "net.mlpackage")
    message = r"cannot verify .*net.mlpackage: random_normal at 'noise' \(and 1 more\) is not known"
    with pytest.raises(UnusableInput, match=message):
        CoreMlRunner(path)


def _edited(path: Path, change: Any) -> Path:
    place = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.proto.Model_pb2.Model.FromString(place.read_bytes())
    change(spec)
    place.write_bytes(spec.SerializeToString())
    return path


def test_what_is_no_single_program_is_refused_in_words(tmp_path: Path, subtests: pytest.Subtests) -> None:
    def fresh(name: str) -> Path:
        path = tmp_path / f"{name}.mlpackage"
        return Path(shutil.copytree(source, path))

    source = save(_layer, {"x": normal(1, 3, 6, 6)}, tmp_path / "net.mlpackage")

    def twice(spec: Any) -> None:
        spec.mlProgram.functions["other"].CopyFrom(spec.mlProgram.functions["main"])

    def old(spec: Any) -> None:
        spec.neuralNetwork.SetInParent()

    def pipeline(spec: Any) -> None:
        spec.pipeline.SetInParent()

    def trees(spec: Any) -> None:
        spec.treeEnsembleRegressor.SetInParent()

    def renamed(spec: Any) -> None:
        spec.description.input[0].name = "picture"

    def other_set(spec: Any) -> None:
        function = spec.mlProgram.functions["main"]
        function.block_specializations["CoreML99x"].CopyFrom(function.block_specializations["CoreML7"])
        function.opset = "CoreML99x"

    def newer(spec: Any) -> None:
        function = spec.mlProgram.functions["main"]
        function.block_specializations["CoreML10"].CopyFrom(function.block_specializations["CoreML7"])
        function.opset = "CoreML10"

    def empty(spec: Any) -> None:
        spec.mlProgram.functions["main"].opset = "CoreML6"

    def other_shape(spec: Any) -> None:
        spec.description.input[0].type.multiArrayType.shape[3] = 7

    def two_makers(spec: Any) -> None:
        function = spec.mlProgram.functions["main"]
        operations = function.block_specializations["CoreML7"].operations
        operations.extend([operations[-1]])

    def no_output(spec: Any) -> None:
        spec.description.output[0].name = "z"

    for change, message in (
        (newer, "its operator set CoreML10 is newer than CoreML9"),
        (empty, "is damaged: it has no operations for its operator set 'CoreML6'"),
        (other_shape, "is damaged: its description and its program give the input 'x' different shapes"),
        (two_makers, "is damaged: two operations make 'y'"),
        (no_output, "is damaged: nothing makes its output 'z'"),
        (twice, r"cannot verify .*: it has 2 functions \(main, other\)"),
        (old, "it is a neural network of the old format, no ML program; convert"),
        (pipeline, "it is a pipeline of several models"),
        (trees, "it is a Core ML model of the kind treeEnsembleRegressor"),
        (renamed, "is damaged: its description names the inputs picture, its program x"),
        (other_set, "is damaged: the operator set 'CoreML99x' is unknown"),
    ):
        with subtests.test(str(change)):
            path = _edited(fresh(change.__name__), change)
            with pytest.raises(UnusableInput, match=message):
                CoreMlRunner(path)


def test_damaged_packages_are_refused_in_words(tmp_path: Path, subtests: pytest.Subtests) -> None:
    source = save(_layer, {"x": normal(1, 3, 6, 6)}, tmp_path / "net.mlpackage")
    inside = Path("Data") / "com.apple.CoreML"

    def no_manifest(path: Path) -> None:
        (path / "Manifest.json").unlink()

    def bad_manifest(path: Path) -> None:
        (path / "Manifest.json").write_text("[]")

    def no_root(path: Path) -> None:
        entries = json.loads((path / "Manifest.json").read_text())
        entries["rootModelIdentifier"] = "nobody"
        (path / "Manifest.json").write_text(json.dumps(entries))

    def no_model(path: Path) -> None:
        (path / inside / "model.mlmodel").unlink()

    def half_a_model(path: Path) -> None:
        content = (path / inside / "model.mlmodel").read_bytes()
        (path / inside / "model.mlmodel").write_bytes(content[: len(content) // 2])

    def empty_model(path: Path) -> None:
        (path / inside / "model.mlmodel").write_bytes(b"")

    def no_weights(path: Path) -> None:
        shutil.rmtree(path / inside / "weights")

    def half_the_weights(path: Path) -> None:
        file = path / inside / "weights" / "weight.bin"
        file.write_bytes(file.read_bytes()[:200])

    def other_weights(path: Path) -> None:
        file = path / inside / "weights" / "weight.bin"
        content = bytearray(file.read_bytes())
        content[64] ^= 0xFF
        file.write_bytes(bytes(content))

    for damage, message in (
        (no_manifest, "is no .mlpackage: its Manifest.json cannot be read"),
        (bad_manifest, "is damaged: its Manifest.json names no model"),
        (no_root, "is damaged: its Manifest.json names no model"),
        (no_model, "cannot be read: No such file"),
        (half_a_model, "is damaged: model.mlmodel is no Core ML model"),
        (empty_model, "is damaged: it holds no model"),
        (no_weights, "weight.bin cannot be read: No such file"),
        (half_the_weights, "is damaged: weight.bin is truncated"),
        (other_weights, "is damaged: weight.bin has no weight at offset 64"),
    ):
        with subtests.test(str(damage)):
            path = Path(shutil.copytree(source, tmp_path / f"{damage.__name__}.mlpackage"))
            damage(path)
            with pytest.raises(UnusableInput, match=message):
                CoreMlRunner(path)


def test_nothing_is_printed(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    CoreMlRunner(whole).run((IMAGE,), {})
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML runs here")
def test_core_ml_itself_is_refused_elsewhere(whole: Path) -> None:
    with pytest.raises(UnusableInput, match="Core ML is a part of macOS, and this is"):
        open_foreign(whole, NATIVE)


@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_core_ml_itself_agrees_with_the_evaluator(whole: Path) -> None:
    native = open_foreign(whole, NATIVE)
    assert native is not None
    ((_, found),) = native.run((IMAGE,), {})
    ((_, wanted),) = CoreMlRunner(whole).run((IMAGE,), {})
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
