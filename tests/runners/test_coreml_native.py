"""Core ML's own runner and the check of the evaluator against it, with a stand-in for Core ML."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.compare.coreml_cross_check import compare_both
from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate
from reparamkit.mil.program import open_program
from reparamkit.runners import coreml, coreml_native
from reparamkit.runners.base import NamedTensors, Runner
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.runners.open import NATIVE, open_foreign
from tests.mil.programs import array, ct, mb, normal, save

WEIGHT = array(4, 3, 3, 3)


class StandIn:
    """What coremltools' MLModel is on macOS, as far as it is used: arrays and images in, arrays out."""

    def __init__(self, path: str, compute_units: Any) -> None:
        assert compute_units is ct.ComputeUnit.CPU_ONLY
        self._program = open_program(Path(path))
        self.given: dict[str, Any] = {}

    def predict(self, given: dict[str, Any]) -> dict[str, Any]:
        self.given = given
        tensors = {}
        for name, value in given.items():
            values = np.array(value)
            if values.ndim == 3:
                values = values.transpose(2, 0, 1)
            shape = self._program.inputs[0].shape
            tensors[name] = torch.from_numpy(values.reshape(shape).astype(np.float32))
        found = evaluate(self._program, tensors)
        if self._program.labels:
            ((name, shares),) = found.items()
            by_label = dict(zip(self._program.labels, shares.reshape(-1).tolist(), strict=True))
            return {"classLabel": "any", name: dict(reversed(by_label.items()))}
        return {name: value.numpy() for name, value in found.items()}


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """To be called once the packages are saved: coremltools does other things there."""

    def pretend() -> None:
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(ct.models, "MLModel", StandIn)

    return pretend


def _layer(path: Path) -> Path:
    return save(
        lambda x: mb.relu(x=mb.conv(x=x, weight=WEIGHT, name="layer"), name="y"),
        {"x": normal(1, 3, 6, 6)},
        path,
    )


class Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, torch.from_numpy(WEIGHT)).relu()


def test_arrays_go_in_and_come_out(on_macos: Callable[[], None], tmp_path: Path) -> None:
    path = _layer(tmp_path / "net.mlpackage")
    on_macos()
    runner = open_foreign(path, NATIVE)
    assert isinstance(runner, Runner)
    assert isinstance(runner, coreml_native.CoreMlNativeRunner)
    evaluated = CoreMlRunner(path)
    assert (runner.name, runner.precision, runner.operators) == ("Core ML", "float32", evaluated.operators)
    assert (runner.declared, runner.ranges, runner.listed) == (evaluated.declared, {}, {})
    x = normal(1, 3, 6, 6)
    ((name, found),) = runner.run((x,), {})
    assert name == "y"
    assert torch.equal(found, evaluated.run((x,), {})[0][1])
    assert runner.accepts((x,), {})
    assert not runner.accepts((normal(1, 3, 7, 6),), {})


def test_what_core_ml_says_is_passed_on(
    on_macos: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, compute_units: Any) -> None:
        raise RuntimeError("Error compiling\n  model")

    path = _layer(tmp_path / "net.mlpackage")
    on_macos()
    monkeypatch.setattr(ct.models, "MLModel", refuse)
    with pytest.raises(UnusableInput, match=r"Core ML cannot open .*net.mlpackage: Error compiling model"):
        open_foreign(path, NATIVE)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_pixels_become_images(on_macos: Callable[[], None], tmp_path: Path, layout: str) -> None:
    channels = 1 if layout == "GRAYSCALE" else 3
    x = normal(1, channels, 4, 5)
    path = save(
        lambda x: mb.relu(x=x, name="y"),
        {"x": x},
        tmp_path / "net.mlpackage",
        inputs=[ct.ImageType("x", x.shape, color_layout=getattr(ct.colorlayout, layout))],
    )
    on_macos()
    runner = coreml_native.CoreMlNativeRunner(path)
    pixels = torch.arange(20 * channels).reshape(1, channels, 4, 5).float()
    runner.run((pixels,), {})
    image = runner._model.given["x"]
    assert (image.size, image.mode) == ((5, 4), "L" if channels == 1 else "RGB")
    seen = np.array(image).reshape(4, 5, channels)
    order = pixels[0].flip(0) if layout == "BGR" else pixels[0]
    assert np.array_equal(seen, order.permute(1, 2, 0).numpy())
    with pytest.raises(
        UnusableInput, match=f"'x' takes whole numbers from 0 to 255 .*x:1x{channels}x4x5:float32"
    ):
        runner.run((pixels - 0.5,), {})


def test_probabilities_come_in_the_order_of_the_labels(on_macos: Callable[[], None], tmp_path: Path) -> None:
    x = normal(1, 3)
    path = save(
        lambda x: mb.softmax(x=x, name="shares"),
        {"x": x},
        tmp_path / "net.mlpackage",
        classifier_config=ct.ClassifierConfig(["cat", "dog", "mule"]),
    )
    on_macos()
    ((_, found),) = coreml_native.CoreMlNativeRunner(path).run((x,), {})
    assert torch.allclose(found, torch.softmax(x, -1))


def test_both_says_that_the_evaluator_agrees(on_macos: Callable[[], None], tmp_path: Path) -> None:
    path = _layer(tmp_path / "net.mlpackage")
    on_macos()
    found = compare_both(Layer(), path, inputs=normal(1, 3, 6, 6)).comparison
    assert found.status == "same"
    assert found.candidate.runner == "Core ML"
    assert "the evaluator agrees with Core ML on this file" in found.notes


class Wrong(CoreMlRunner):
    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        return [(name, value * 1.01) for name, value in super().run(args, kwargs)]


def test_both_cannot_tell_where_the_evaluator_differs(
    on_macos: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _layer(tmp_path / "net.mlpackage")
    on_macos()
    monkeypatch.setattr(coreml, "CoreMlRunner", Wrong)
    found = compare_both(Layer(), path, inputs=normal(1, 3, 6, 6)).comparison
    assert found.status == "cannot tell"
    assert found.reason.startswith("the evaluator does not agree with Core ML on this file: ")

    def unknown(path: Path) -> None:
        raise UnusableInput("cannot verify: lstm at 'y'")

    monkeypatch.setattr(coreml, "CoreMlRunner", unknown)
    found = compare_both(Layer(), path, inputs=normal(1, 3, 6, 6)).comparison
    assert (found.status, found.reason) == ("cannot tell", "cannot verify: lstm at 'y'")


def test_both_of_another_file_is_one_comparison(on_macos: Callable[[], None], tmp_path: Path) -> None:
    program = torch.export.export(Layer(), (normal(1, 3, 6, 6),))
    torch.export.save(program, tmp_path / "net.pt2")
    on_macos()
    found = compare_both(Layer(), tmp_path / "net.pt2").comparison
    assert found.status == "same"
    assert not any("evaluator" in note for note in found.notes)
