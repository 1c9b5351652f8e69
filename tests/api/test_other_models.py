"""Other dimensions and number types, exported programs and TorchScript."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import reparamkit as rk
from tests.api.networks import F32, FREE, Branchy, image, net, run_onnx, scripted, traced
from tests.loading.files import write_scripted
from tests.nets import assert_same, noise

pytestmark = pytest.mark.usefixtures("no_grad")


def test_the_module_is_an_ordinary_module() -> None:
    original = net()
    module = rk.fold(original, image()).module
    x = image(2, 4, 6, 7, seed=2)
    expected = original(x)
    assert_same(expected, copy.deepcopy(module)(x), F32)
    assert_same(expected, pickle.loads(pickle.dumps(module))(x), F32)
    module.train()
    assert_same(expected, module(x), F32)
    module.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.zero_()
    module.load_state_dict(state)
    assert_same(expected, module(x), F32)
    double = copy.deepcopy(module).to(torch.float64)
    assert_same(expected.double(), double(x.double()), F32)
    exported = torch.export.export(module, (x,), dynamic_shapes=FREE)
    assert_same(expected, exported.module()(x), F32)
    again = rk.fold(module, image())
    assert again.folds == ()
    assert_same(expected, again.module(x), F32)
    with torch.enable_grad():
        module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


# Other models


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(
    ("dims", "shape", "kind", "window"),
    [(1, (1, 4, 9), nn.Conv1d, (3,)), (3, (1, 4, 5, 6, 4), nn.Conv3d, (3, 3, 3))],
)
def test_other_numbers_of_dimensions(
    tmp_path: Path, dims: int, shape: tuple[int, ...], kind: type[nn.Conv1d], window: tuple[int, ...]
) -> None:
    original = net(Branchy(dims=dims))
    folded = rk.fold(original, image(*shape))
    assert len(folded.folds) == 2
    layers = [m for m in folded.module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    assert [type(m) for m in layers] == [kind, kind]
    assert all(m.kernel_size == window for m in layers)
    x = image(3, 4, *(n + 2 for n in shape[2:]), seed=3)
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    expected = original(x)
    assert_same(expected, folded.module(x), F32)
    assert_same(expected, torch.export.load(tmp_path / "net.pt2").module()(x), F32)
    assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types(tmp_path: Path, dtype: torch.dtype) -> None:
    original = net().to(dtype)
    folded = rk.fold(original, image().to(dtype))
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    assert {p.dtype for p in folded.module.parameters()} == {dtype}
    folded.save(tmp_path / "net.pt2")
    x = image(2, 4, 6, 7, seed=2).to(dtype)
    exact = copy.deepcopy(original).double()(x.double())
    scale = exact.abs().max()
    for module in (folded.module, torch.export.load(tmp_path / "net.pt2").module()):
        found = module(x)
        assert found.dtype == dtype
        assert (found.double() - exact).abs().max() / scale < 20 * torch.finfo(dtype).eps


def test_float16_goes_to_onnx(tmp_path: Path) -> None:
    original = net().half()
    rk.fold(original, image().half()).save(tmp_path / "net.onnx")
    x = image(2, 4, 6, 7, seed=2).half()
    (found,) = run_onnx(tmp_path / "net.onnx", x)
    assert found.dtype == torch.float16
    assert_same(original(x), found, 1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_what_onnx_runtime_cannot_run_is_not_written(tmp_path: Path, dtype: torch.dtype) -> None:
    folded = rk.fold(net().to(dtype), image().to(dtype))
    with pytest.raises(rk.UnusableInput, match="ONNX Runtime"):
        folded.save(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_exported_program() -> None:
    original = net()
    program = torch.export.export(original, (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    for inputs in (None, image(1, 4, 9, 8), image(4, 4, 7, 7)):
        folded = rk.fold(program, inputs)
        assert len(folded.folds) == 2
        assert folded.sizes == "free batch and spatial sizes"
        x = image(3, 4, 6, 7, seed=2)
        assert_same(original(x), folded.module(x), F32)


def test_a_pt2_with_a_free_batch_given_one_image(tmp_path: Path) -> None:
    original = net()
    program = torch.export.export(original, (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    torch.export.save(program, tmp_path / "net.pt2")
    folded = rk.fold(rk.load(tmp_path / "net.pt2"), image(1, 4, 9, 8))
    folded.save(tmp_path / "out.pt2", tmp_path / "out.onnx")
    x = image(3, 4, 6, 7, seed=2)
    assert_same(original(x), torch.export.load(tmp_path / "out.pt2").module()(x), F32)
    assert_same([original(x)], run_onnx(tmp_path / "out.onnx", x), F32)


def test_an_exported_program_rejects_what_it_was_not_made_for() -> None:
    program = torch.export.export(net(), (image(2, 4, 9, 8),))
    with pytest.raises(rk.UnusableInput, match="rejects the example inputs"):
        rk.fold(program, image(1, 4, 9, 8))


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("make", [scripted, traced])
def test_torchscript(tmp_path: Path, make: Callable[[Path], rk.Source]) -> None:
    source = make(tmp_path)
    assert isinstance(source.model, torch.jit.ScriptModule)
    x = noise(1, 3 if make is traced else 4, 8, 8, dtype=torch.float32)
    expected = source.model(x)
    for given in (source, source.model):
        folded = rk.fold(given, x)
        assert len(folded.folds) == 2
        assert folded.after.get("batch_norm", 0) == 0
        assert folded.equivalence is not None
        assert folded.equivalence.passed
        assert_same(expected, folded.module(x), F32)
        folded.save(tmp_path / "out.pt2", tmp_path / "out.onnx")
        assert_same(expected, torch.export.load(tmp_path / "out.pt2").module()(x), F32)
        assert_same([expected], run_onnx(tmp_path / "out.onnx", x), F32)


def test_torchscript_whose_forward_has_defaults(tmp_path: Path) -> None:
    """torch's own converter takes no default arguments; the error has to say what to do instead."""
    source = rk.load(write_scripted(tmp_path / "net.pt"))
    with pytest.raises(
        rk.CannotCapture, match=r"cannot be converted.*fold the nn\.Module that it was made from"
    ):
        rk.fold(source, noise(1, 3, 8, 8, dtype=torch.float32))


def test_torchscript_says_one_thing_about_its_sizes(tmp_path: Path) -> None:
    folded = rk.fold(scripted(tmp_path), image())
    free = "fixed" not in folded.sizes
    assert free != any("fixed sizes" in note for note in folded.notes), (folded.sizes, folded.notes)


def test_nothing_to_fold(tmp_path: Path) -> None:
    folded = rk.fold(nn.ReLU().eval(), image())
    assert (folded.folds, folded.refusals) == ((), ())
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    folded.save(tmp_path / "net.pt2")
    assert_same(torch.relu(image()), torch.export.load(tmp_path / "net.pt2").module()(image()), 0)
