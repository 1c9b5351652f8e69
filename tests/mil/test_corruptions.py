"""A saved package that was tampered with never passes for the network that it was made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.compare.compare import compare
from reparamkit.compare.comparison import CANNOT_TELL, DIFFERENT, SAME
from reparamkit.support.garbage import only_new_garbage
from reparamkit.support.quiet import quiet
from tests.mil.programs import ct, normal

INSIDE = Path("Data") / "com.apple.CoreML"


class Net(torch.nn.Module):
    """The last convolution's paddings can be swapped without changing any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, stride=2)
        self.middle = torch.nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.last = torch.nn.Conv2d(16, 8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.middle(self.first(image).relu()).relu()
        y = self.last(torch.nn.functional.pad(y, (2, 0, 0, 2))).relu()
        return y.mean((2, 3))


@cache
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


IMAGE = normal(1, 3, 20, 20)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coreml") / "net.mlpackage"
    program = torch.export.export(net(), (IMAGE,)).run_decompositions({})
    with quiet(), only_new_garbage():
        made = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16,
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
        )
        made.save(str(path))
    return path


def _specification(path: Path, change: Callable[[Any], None]) -> None:
    place = path / INSIDE / "model.mlmodel"
    spec = ct.proto.Model_pb2.Model.FromString(place.read_bytes())
    before = spec.SerializeToString()
    change(spec)
    assert spec.SerializeToString() != before
    place.write_bytes(spec.SerializeToString())


def _block(spec: Any) -> Any:
    (function,) = spec.mlProgram.functions.values()
    return function.block_specializations[function.opset]


def _setting(block: Any, kind: str, place: int, parameter: str) -> Any:
    """The constant that a parameter of the nth operation of a kind gets."""
    operation = [each for each in block.operations if each.type == kind][place]
    name = operation.inputs[parameter].arguments[0].name
    (constant,) = [each for each in block.operations if each.outputs and each.outputs[0].name == name]
    return constant.attributes["val"].immediateValue.tensor.ints


def a_weight_byte(path: Path) -> None:
    """The high byte of one float16 weight among 1152 of the last layer: its exponent."""
    file = path / INSIDE / "weights" / "weight.bin"
    content = bytearray(file.read_bytes())
    content[-301] ^= 0x10
    file.write_bytes(bytes(content))


def a_swapped_pad(path: Path) -> None:
    def swap(spec: Any) -> None:
        block = _block(spec)
        kind = "pad" if any(each.type == "pad" for each in block.operations) else "conv"
        values = _setting(block, kind, 0 if kind == "pad" else 2, "pad").values
        turned = [number for at in range(0, len(values), 2) for number in (values[at + 1], values[at])]
        values[:] = turned

    _specification(path, swap)


def a_swapped_pad_of_the_middle(path: Path) -> None:
    """One column at the right in place of one at the left: the stride hides it from every shape."""

    def swap(spec: Any) -> None:
        _setting(_block(spec), "conv", 1, "pad").values[:] = [1, 1, 0, 2]

    _specification(path, swap)


def a_stride(path: Path) -> None:
    def change(spec: Any) -> None:
        _setting(_block(spec), "conv", 1, "strides").values[:] = [1, 2]

    _specification(path, change)


def a_missing_bias(path: Path) -> None:
    def drop(spec: Any) -> None:
        operation = [each for each in _block(spec).operations if each.type == "conv"][1]
        del operation.inputs["bias"]

    _specification(path, drop)


def a_renamed_input(path: Path) -> None:
    def rename(spec: Any) -> None:
        spec.description.input[0].name = "picture"

    _specification(path, rename)


def a_renamed_value(path: Path) -> None:
    def rename(spec: Any) -> None:
        operation = next(each for each in _block(spec).operations if each.type == "relu")
        operation.outputs[0].name += "_"

    _specification(path, rename)


EXPECTED: dict[Callable[[Path], None], str] = {
    a_weight_byte: DIFFERENT,
    a_swapped_pad: DIFFERENT,
    a_swapped_pad_of_the_middle: DIFFERENT,
    a_stride: CANNOT_TELL,
    a_missing_bias: DIFFERENT,
    a_renamed_input: CANNOT_TELL,
    a_renamed_value: CANNOT_TELL,
}
"""What Core ML itself would refuse to load is no verdict on the network."""


def test_the_package_is_right_before(good: Path) -> None:
    found = compare(net(), good, inputs=IMAGE).comparison
    assert found.status == SAME, found.reason


@pytest.mark.parametrize("corrupt", EXPECTED)
def test_a_corrupted_package_does_not_pass(
    good: Path, tmp_path: Path, corrupt: Callable[[Path], None]
) -> None:
    path = Path(shutil.copytree(good, tmp_path / "net.mlpackage"))
    corrupt(path)
    found = compare(net(), path, inputs=IMAGE).comparison
    assert found.status == EXPECTED[corrupt], found.reason
    assert found.exit_status == {DIFFERENT: 1, CANNOT_TELL: 2}[EXPECTED[corrupt]]
    assert found.reason
