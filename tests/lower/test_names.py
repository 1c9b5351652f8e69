"""Names, opsets and metadata of files, as others write them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.errors import CannotWrite, UnusableInput
from reparamkit.lower.request import Request
from reparamkit.runners.open import open_runner
from reparamkit.support.version import __version__
from tests.lower.coreml.nets import spec_of
from tests.nets import randomised
from tests.slow_share import few

IMAGE = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Pair(nn.Module):
    """Two inputs of one shape, and two outputs of one shape: what is taken for another shows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        y = self.stem(left - 2 * right)
        return {"near": self.head(y), "far": torch.sigmoid(y)}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return randomised(Pair())


@pytest.fixture(scope="module")
def folded(network: nn.Module) -> rk.Folded:
    return rk.fold(network, {"left": IMAGE, "right": IMAGE.flip(0)}, dynamic="batch")


NAMES: dict[str, Any] = {"input_names": ["first", "second"], "output_names": ("a", "b.0")}


class Weighted(nn.Module):
    """Weights that are called as an output is, or an input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        for name in ("output", "near", "x", "near_value"):
            self.register_parameter(name, nn.Parameter(torch.rand(3, 1, 1)))
        self.register_buffer("far", torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(x * self.get_parameter("output") + self.get_parameter("near"))
        y = torch.relu(y * self.get_parameter("x") - self.get_parameter("near_value"))
        return {"near": self.conv(y), "far": torch.relu(y + self.get_buffer("far"))}


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"output_names": ["conv.weight", "output"]},
        {"input_names": ["conv.weight"], "output_names": ["relu", "near_value"]},
    ],
)
def test_weights_may_be_called_as_inputs_and_outputs_are(names: dict[str, Any], tmp_path: Path) -> None:
    network = randomised(Weighted())
    path = tmp_path / "net.onnx"
    rk.fold(network, IMAGE).save(path, **names)
    session = open_runner(path)
    outputs = session.run((IMAGE,), {})
    assert [name for name, _ in outputs] == names.get("output_names", ["near", "far"])
    for (_, values), wanted in zip(outputs, network(IMAGE).values(), strict=True):
        torch.testing.assert_close(values, wanted)


def test_onnx_has_the_names_that_were_asked_for(
    tmp_path: Path, folded: rk.Folded, network: nn.Module
) -> None:
    path = tmp_path / "net.onnx"
    (saved,) = folded.save(path, **NAMES, opset=19)
    assert saved.equivalence.passed
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["first", "second"]
    assert [value.name for value in model.graph.output] == ["a", "b.0"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 19)]
    # By place where the names differ, by name where they are given in another order.
    assert rk.check(network, path, {"left": IMAGE, "right": IMAGE.flip(0)}).passed
    values = open_runner(path).run((), {"second": IMAGE.flip(0), "first": IMAGE})
    for (_, value), expected in zip(values, network(IMAGE, IMAGE.flip(0)).values(), strict=True):
        assert torch.allclose(value, expected, atol=1e-5)


def test_nodes_are_called_after_their_modules_and_the_file_says_what_it_is(
    tmp_path: Path, folded: rk.Folded
) -> None:
    folded.save(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    names = [node.name for node in model.graph.node]
    assert {"/stem/0/Conv", "/stem/2/Relu", "/head/Conv", "/Sigmoid"} < set(names)
    assert len(set(names)) == len(names)
    assert (model.producer_name, model.producer_version) == ("reparamkit", __version__)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["reparamkit.version"] == __version__
    assert said["reparamkit.torch"] == torch.__version__
    assert said["reparamkit.folds"] == "1"
    assert len(said["reparamkit.source_sha256"]) == 64
    assert json.loads(said["reparamkit.after"])["conv2d"] == 2
    assert str(tmp_path) not in str(said)


@pytest.mark.slow
def test_another_weight_is_another_source(tmp_path: Path) -> None:
    sources = []
    for seed in (0, 1):
        rk.fold(randomised(Pair(), seed), (IMAGE, IMAGE.flip(0)), dynamic=False).save(
            tmp_path / f"{seed}.onnx"
        )
        props = onnx.load(tmp_path / f"{seed}.onnx").metadata_props
        sources.append(next(entry.value for entry in props if entry.key == "reparamkit.source_sha256"))
    assert sources[0] != sources[1]


@pytest.mark.parametrize("opset", few([14, 17, 18, 25], 14, 25))
def test_opsets(tmp_path: Path, opset: int) -> None:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = randomised(nn.Sequential(*layers, nn.Linear(4, 5)))
    (saved,) = rk.fold(network, IMAGE).save(tmp_path / "net.onnx", opset=opset)
    assert saved.equivalence.passed
    model = onnx.load(tmp_path / "net.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    # What reads that opset need not know a newer version of the format.
    assert model.ir_version <= {14: 7, 17: 8, 18: 8}.get(opset, 13)
    assert model.graph.node[0].name == "/0/Conv"
    assert any(entry.key == "reparamkit.folds" for entry in model.metadata_props)


def test_what_an_old_opset_has_no_operator_for(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm([12, 10]))
    with pytest.raises(CannotWrite) as raised:
        rk.fold(network.eval(), IMAGE, dynamic=False).save(tmp_path / "net.onnx", opset=16)
    assert "cannot lead this network from opset 18 back to 16: there is none for LayerNormalization" in str(
        raised.value
    )
    assert "give --opset 18 or later" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_core_ml_has_them_too(tmp_path: Path, folded: rk.Folded) -> None:
    path = tmp_path / "net.mlpackage"
    (saved,) = folded.save(path, input_names=["first", "second"], output_names=["a", "b"])
    assert saved.equivalence.passed
    spec = spec_of(path)
    assert [entry.name for entry in spec.description.input] == ["first", "second"]
    assert [entry.name for entry in spec.description.output] == ["a", "b"]
    said = dict(spec.description.metadata.userDefined)
    assert said["reparamkit.torch"] == torch.__version__
    assert said["reparamkit.folds"] == "1"
    assert spec.description.metadata.author == ""


@pytest.mark.slow
def test_executorch_has_them_too(tmp_path: Path, folded: rk.Folded) -> None:
    pytest.importorskip("executorch", reason="ExecuTorch, of the extra [executorch], is not installed")
    folded.save(tmp_path / "net.pte", **NAMES)
    runner: Any = open_runner(tmp_path / "net.pte")
    assert [spec.name for spec in runner.declared] == ["first", "second"]
    assert [name for name, _ in runner.run((IMAGE, IMAGE), {})] == ["a", "b.0"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"opset": 13}, "an .onnx is not written in opset 13: say 14 to 25"),
        ({"opset": 26}, "an .onnx is not written in opset 26"),
        ({"input_names": ["a"]}, "1 input name (a) for a network with 2 inputs (left, right)"),
        (
            {"output_names": ["a", "b", "c"]},
            "3 output names (a, b, c) for a network with 2 outputs (near, far)",
        ),
        ({"input_names": ["a", "a"]}, "the name 'a' is given twice"),
        (
            {"input_names": ["a", "b"], "output_names": ["b", "c"]},
            "'b' is given to an input and to an output",
        ),
        ({"output_names": ["left", "c"]}, "'left' is given to an input and to an output"),
        (
            {"input_names": ["right", "left"]},
            "the input name 'right' is given to input 0, and the network calls its",
        ),
        ({"output_names": ["x", "near"]}, "the output name 'near' is given to output 1"),
        ({"input_names": ["a", ""]}, "an input name is empty"),
        ({"input_names": ["a", "0"]}, "the input name '0' would be taken for a place"),
        ({"output_names": ["a b", "c"]}, "the output name 'a b' has spaces"),
        ({"output_names": "scores"}, "the output names are a list of texts, not the text 'scores'"),
    ],
)
def test_names_that_do_not_do(tmp_path: Path, folded: rk.Folded, options: Any, words: str) -> None:
    with pytest.raises(UnusableInput) as raised:
        folded.save(tmp_path / "net.onnx", **options)
    assert words in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["b.0", "1st", "größe", "class", "a-b"])
def test_core_ml_takes_identifiers(tmp_path: Path, folded: rk.Folded, name: str) -> None:
    with pytest.raises(UnusableInput, match=r"is no name that Core ML takes .*: say "):
        folded.save(tmp_path / "net.mlpackage", output_names=[name, "other"])


def test_options_are_for_the_files_that_have_them() -> None:
    for request, suffix, words in (
        (Request(opset=18), ".pt2", "an opset is for an .onnx, and no output is one: give -o FILE.onnx"),
        (
            Request(input_names=("a",)),
            ".pt",
            "a name of an input is for an .onnx, .mlpackage or .pte, and no",
        ),
        (Request(output_names=("a",)), ".py", "a name of an output is for"),
    ):
        with pytest.raises(UnusableInput) as raised:
            request.check_for([Path(f"net{suffix}")])
        assert words in str(raised.value)


_SAVE = """
import sys, torch
import reparamkit as rk
from tests.lower.test_names import IMAGE, NAMES, Pair, randomised
rk.fold(randomised(Pair()), (IMAGE, IMAGE.flip(0)), dynamic=False).save(sys.argv[1], opset=17, **NAMES)
"""


@pytest.mark.slow
def test_the_same_bytes_in_every_run(tmp_path: Path) -> None:
    hashes = set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.onnx"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _SAVE, str(path)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1
