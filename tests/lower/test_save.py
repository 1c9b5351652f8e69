"""Saving: each format, verified by running the file; and what keeps a file from appearing."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from reparamkit.compare.check import check
from reparamkit.compare.float64.reference import Reference
from reparamkit.errors import CannotCapture, MissingExtra, NotEquivalent, UnusableInput, install_line
from reparamkit.lower.exported import axis_names, export_program, free_axes, inner_sizes_of
from reparamkit.lower.onnx import operator_counts, save_onnx
from reparamkit.lower.pt2 import load_pt2, save_pt2
from tests.compare.nets import Lambda, Net, folded, net
from tests.lower.saving import convolutions_without_bias
from tests.lower.saving import save_program as save

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
FREE = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)


@pytest.fixture(scope="module")
def original() -> Net:
    return net()


@pytest.fixture(scope="module")
def program(original: Net) -> ExportedProgram:
    return export_program(folded(original), (IMAGE,), {}, FREE)


@pytest.fixture
def reference(original: Net) -> Reference:
    return Reference(original, (IMAGE,))


def _sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def test_onnx_is_named_dynamic_simplified_and_verified_at_other_sizes(
    tmp_path: Path, program: ExportedProgram, reference: Reference, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    saved = save(program, path, reference, input_names=["image"], output_names=["logits"])
    assert capfd.readouterr() == ("", "")
    assert saved.notes == ()
    assert saved.equivalence.passed
    probed = {entry.probe for entry in saved.equivalence.outputs}
    assert any("batch=3" in name and "height=" in name and "width=" in name for name in probed)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert _sizes(model.graph.input[0]) == ["batch", 3, "height", "width"]
    assert _sizes(model.graph.output[0]) == ["batch", 10]
    assert saved.operators == operator_counts(path)
    assert saved.operators["Conv"] == 3
    assert convolutions_without_bias(path) == []
    assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "Conv")


def test_onnx_tells_nothing_of_this_machine(
    tmp_path: Path, program: ExportedProgram, reference: Reference
) -> None:
    path = tmp_path / "net.onnx"
    save(program, path, reference)
    text = path.read_bytes()
    for secret in (str(Path(__file__).parents[2]), sys.prefix, "stack_trace", "onnxsim."):
        assert secret.encode() not in text
    assert b"name_scopes" in text


def test_formulas_of_axes_are_renamed(tmp_path: Path) -> None:
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2.0)).eval()
    made = export_program(strided, (IMAGE,), {}, FREE)
    save_onnx(made, tmp_path / "a.onnx", axis_names=axis_names(made))
    model = onnx.load(tmp_path / "a.onnx")
    sizes = _sizes(model.graph.output[0])
    assert sizes[0] == "batch"
    assert "height" in str(sizes[2])
    assert "width" in str(sizes[3])
    assert "s77" not in "".join(map(str, sizes))
    assert check(strided, tmp_path / "a.onnx", IMAGE, dynamic_axes={0: {0: "b", 2: "h", 3: "w"}}).passed


def test_structured_outputs_keep_their_names(tmp_path: Path) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, object]:
            y = self.conv(image)
            return {"map": (y, y * scale), "labels": y.argmax(1), "same": y}

    model = Heads().eval()
    inputs = {"image": IMAGE, "scale": torch.ones(1)}
    made = export_program(model, (), inputs)
    reference = Reference(model, (), inputs)
    assert save(made, tmp_path / "heads.onnx", reference).equivalence.passed
    assert [value.name for value in onnx.load(tmp_path / "heads.onnx").graph.output] == [
        "map_0",
        "map_1",
        "labels",
        "same",
    ]
    shuffled = {"scale": inputs["scale"], "image": inputs["image"]}
    assert check(model, tmp_path / "heads.onnx", shuffled).passed
    assert save(made, tmp_path / "heads.pt2", reference).equivalence.passed


def test_pt2_holds_no_pickled_weights_and_reads_back(
    tmp_path: Path, program: ExportedProgram, reference: Reference
) -> None:
    path = tmp_path / "net.pt2"
    saved = save(program, path, reference)
    assert saved.operators["conv2d"] == 3
    assert any("batch=3" in entry.probe for entry in saved.equivalence.outputs)
    with zipfile.ZipFile(path) as archive:
        configs = [name for name in archive.namelist() if name.endswith("_config.json")]
        assert len(configs) == 2
        assert not any(b'"use_pickle": true' in archive.read(name) for name in configs)
        examples = next(name for name in archive.namelist() if name.endswith("sample_inputs/model.pt"))
        with archive.open(examples) as file:
            torch.load(file, weights_only=True)
    assert torch.equal(load_pt2(path).module()(IMAGE), program.module()(IMAGE))


def _broken(program_of: Net) -> ExportedProgram:
    candidate = folded(program_of)
    with torch.no_grad():
        candidate.get_parameter("first.0.weight").view(-1)[31] *= 1.01
    return export_program(candidate, (IMAGE,), {}, FREE)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_wrong_file_never_appears(tmp_path: Path, original: Net, reference: Reference, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_text("old")
    with pytest.raises(
        NotEquivalent, match=rf"net\{suffix} was not written: the file is not equivalent: "
    ) as caught:
        save(_broken(original), path, reference)
    assert caught.value.equivalence is not None
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_mistake_that_torch_onnx_s_own_verification_only_logs(
    tmp_path: Path, program: ExportedProgram, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that adds 1 to a bias: `verify=True` of torch.onnx warns and goes on."""
    from reparamkit.lower import onnx as lower_onnx

    def off_by_one(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
        values = onnx.numpy_helper.to_array(bias) + 1
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    monkeypatch.setattr(lower_onnx, "_simplified", off_by_one)
    with pytest.raises(NotEquivalent, match="was not written"):
        save(program, tmp_path / "net.onnx", reference)
    assert list(tmp_path.iterdir()) == []


def test_an_export_with_a_fixed_size_under_a_free_name_fails(tmp_path: Path, reference: Reference) -> None:
    """The axes are free on paper, and the network divides by the example's size."""
    fixed = Lambda(lambda self, x: self.conv(x).sum((2, 3)) / 1024)
    mean = Lambda(lambda self, x: self.conv(x).mean((2, 3)))
    made = export_program(fixed, (IMAGE,), {}, (FREE,))
    with pytest.raises(NotEquivalent, match="another size"):
        save(made, tmp_path / "net.onnx", Reference(mean, (IMAGE,)))


@pytest.mark.slow
def test_a_large_network_takes_two_files(
    tmp_path: Path, program: ExportedProgram, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reparamkit.lower import onnx as lower_onnx

    monkeypatch.setattr(lower_onnx, "ONE_FILE_BYTES", 1000)
    path = tmp_path / "net.onnx"
    stranger = tmp_path / "net.onnx.data"
    stranger.write_text("not ours")
    for _ in range(2):
        saved = save(program, path, reference)
        assert saved.notes == ("not simplified: with more than 2 GB of weights, ONNX needs a second file",)
        assert saved.operators["Conv"] == 3
        names = sorted(entry.name for entry in tmp_path.iterdir())
        assert len(names) == 3
        assert names[:1] == ["net.onnx"]
        assert stranger.read_text() == "not ours"
    assert _sizes(onnx.load(path).graph.input[0]) == ["batch", 3, "height", "width"]
    assert check(folded(net()), path, IMAGE).passed


def test_unusable_paths_are_found_before_any_work(tmp_path: Path, reference: Reference) -> None:
    def never() -> ExportedProgram:
        raise AssertionError("exported for nothing")

    for name, words in [
        (
            "net.tflite",
            r"'.tflite', which names no format \(supported: .onnx, .mlpackage, .pte, .pt2, .pt, .py\)",
        ),
        ("net", "it has no suffix"),
        ("net.mlpackage", "a Core ML package is written by `Folded.save`"),
        ("missing/net.onnx", "the folder .*missing does not exist"),
    ]:
        with pytest.raises(UnusableInput, match=words):
            save(never, tmp_path / name, reference)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxsim", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_command(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=f"{missing}.*{re.escape(install_line('onnx'))}"):
        save(lambda: pytest.fail("exported for nothing"), tmp_path / "net.onnx", reference)


def test_a_bias_of_zeros_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convs = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False)
    )
    for name in ("0.bias", "2.bias"):
        nn.init.zeros_(convs.get_parameter(name))
    made = export_program(convs.eval(), (IMAGE,), {}, FREE)
    path = tmp_path / "net.onnx"
    assert save(made, path, Reference(convs, (IMAGE,))).operators["Conv"] == 3
    assert len(convolutions_without_bias(path)) == 1


def test_names_that_repeat(tmp_path: Path, program: ExportedProgram) -> None:
    with pytest.raises(UnusableInput, match="the output name 'a' is given twice"):
        save_onnx(program, tmp_path / "net.onnx", output_names=["a", "a"])


@pytest.mark.slow
def test_a_simplifier_that_fails_or_fixes_sizes_is_left_out(
    tmp_path: Path, program: ExportedProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxsim

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr(onnxsim, "simplify", crash)
    assert save_onnx(program, tmp_path / "a.onnx") == ("not simplified: onnxsim failed (RuntimeError: boom)",)

    def fixing(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        fixed = copy.deepcopy(model)
        fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        return fixed, True

    monkeypatch.setattr(onnxsim, "simplify", fixing)
    notes = save_onnx(program, tmp_path / "a.onnx")
    assert notes == ("not simplified: onnxsim changed the sizes of inputs or outputs",)


@pytest.mark.slow
def test_a_full_disk_while_saving_keeps_the_old_file(
    tmp_path: Path, program: ExportedProgram, reference: Reference
) -> None:
    """In a process of its own, whose files may not grow past 4 kB; torch's own writer would end it."""
    torch.export.save(program, tmp_path / "program.pt2")
    script = """
import resource, sys
from pathlib import Path
import torch
from reparamkit.errors import UnusableInput
from reparamkit.lower.pt2 import load_pt2
from tests.lower.saving import save_program as save
from reparamkit.compare.float64.reference import Reference
torch.set_num_threads(1)
folder = Path(sys.argv[1])
program = load_pt2(folder / "program.pt2")
reference = Reference(program, program.example_inputs[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for name in ("net.pt2", "net.onnx"):
    (folder / name).write_text("old")
    try:
        save(program, folder / name, reference)
    except UnusableInput as error:
        print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    assert all("cannot write" in line and "larger than this system allows" in line for line in lines)
    assert (tmp_path / "net.pt2").read_text() == (tmp_path / "net.onnx").read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.onnx", "net.pt2", "program.pt2"]


def test_free_axes_and_their_names(program: ExportedProgram) -> None:
    axes, ranges = free_axes(program)
    names = axis_names(program)
    assert {axis: names[symbol] for axis, symbol in axes[0].items()} == {0: "batch", 2: "height", 3: "width"}
    assert all(low >= 0 and high is None for low, high in ranges.values())
    fixed = export_program(net(), (IMAGE,), {})
    assert free_axes(fixed) == ({}, {})
    pair = Lambda(lambda self, x, y: self.conv(x).mean((2, 3)).sum() + y.sum())
    shapes = ({0: Dim.AUTO}, {0: Dim.AUTO})
    two = export_program(pair, (IMAGE, torch.randn(5, 7)), {}, (shapes,))
    assert sorted(axis_names(two).values()) in (["batch", "y_batch"], ["args_1_batch", "batch"])


def test_the_sizes_inside_a_program_are_functions_of_those_of_its_free_axes() -> None:
    network = Lambda(lambda self, x: nn.functional.avg_pool2d(self.conv(x), 3)[:, :, :, : x.shape[0] * 2])
    sizes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    made = export_program(network, (torch.randn(2, 3, 32, 40),), {}, ((sizes,),))
    inner = inner_sizes_of(made, axis_names(made))
    assert {4, 10, 13} <= set(inner({}))
    assert {6, 5, 13} <= set(inner({"batch": 3, "height": 17}))


def test_a_model_that_cannot_be_captured() -> None:
    unsteady = Lambda(lambda self, x: x + 1 if x.sum() > 0 else x)
    with pytest.raises(CannotCapture, match=r"torch\.export cannot turn the model into one graph: "):
        export_program(unsteady, (IMAGE,), {})


def test_importing_loads_no_optional_package() -> None:
    script = """
import sys
import reparamkit.lower, reparamkit.compare
heavy = {"onnx", "onnxruntime", "onnxsim", "onnxscript", "coremltools"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) if heavy else 0)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_pt2_is_small_enough_for_what_it_holds(tmp_path: Path, program: ExportedProgram) -> None:
    save_pt2(program, tmp_path / "net.pt2")
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    assert weights < (tmp_path / "net.pt2").stat().st_size < weights + 200_000
