"""Every kind of source that `load` opens, recognised by its content."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.source import load
from tests.loading import files

HERE = "tests.loading.files"


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; the modules imported from it are forgotten again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items())


def test_an_exported_program_comes_with_its_example_inputs(tmp_path: Path) -> None:
    source = load(files.write_exported(tmp_path / "net.anything"))
    assert isinstance(source.model, torch.export.ExportedProgram)
    assert source.name == "net"
    assert source.path == tmp_path / "net.anything"
    assert source.example_inputs is not None
    assert [tuple(x.shape) for x in source.example_inputs] == [(2, 3, 16, 16)]
    torch.testing.assert_close(
        source.model.module()(*source.example_inputs)["out"], files.net()(*source.example_inputs)["out"]
    )


def test_an_exported_program_in_the_layout_before_torch_2_8(tmp_path: Path) -> None:
    source = load(files.write_old_exported(tmp_path / "net.pt2"))
    assert isinstance(source.model, torch.export.ExportedProgram)
    assert source.example_inputs is not None
    torch.testing.assert_close(
        source.model.module()(*source.example_inputs)["out"], files.net()(*source.example_inputs)["out"]
    )


@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")
def test_the_aten_dialect_and_keyword_inputs_load(tmp_path: Path) -> None:
    program = torch.export.export(KeywordNet(), (torch.ones(2),), {"scale": torch.ones(2)})
    torch.export.save(program.run_decompositions({}), tmp_path / "net.pt2")
    source = load(tmp_path / "net.pt2")
    assert list(source.example_kwargs) == ["scale"]


class KeywordNet(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return x * scale + torch.tensor([2.0, 3.0])


@pytest.mark.parametrize("write", [files.write_scripted, files.write_traced])
def test_torchscript(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source = load(write(tmp_path / "net.pth"))
    assert isinstance(source.model, torch.jit.ScriptModule)
    assert source.model(torch.randn(1, 3, 8, 8)).shape == (1, 4, 8, 8)
    assert source.name == "net"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_ema"])
def test_weights_alone_with_a_callable(tmp_path: Path, zipped: bool, wrap: str | None) -> None:
    net = files.net()
    state = (
        {f"module.{name}": value for name, value in net.state_dict().items()} if wrap else net.state_dict()
    )
    torch.save(
        {wrap: state, "epoch": 3} if wrap else state,
        tmp_path / "w.bin",
        _use_new_zipfile_serialization=zipped,
    )
    source = load(tmp_path / "w.bin", model=f"{HERE}:Net")
    assert isinstance(source.model, files.Net)
    assert same_weights(net, source.model)
    found = f"the weights were found under '{wrap}'; beside it are 'epoch' (--key takes another)"
    assert source.notes == ((found,) if wrap else ())


def test_weights_alone_with_a_reference_model(tmp_path: Path) -> None:
    from reparamkit.models import build

    trained = build("mobileone_s0")
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    source = load(tmp_path / "w.pth", model="mobileone_s0")
    assert isinstance(source.model, nn.Module)
    assert same_weights(trained, source.model)
    assert source.example_inputs is not None
    assert source.name == "w"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_where_it_is_trusted(tmp_path: Path, zipped: bool) -> None:
    torch.save(files.net(), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    source = load(tmp_path / "net.pt", trust_pickle=True)
    assert isinstance(source.model, files.Net)
    assert same_weights(files.net(), source.model)


def test_a_pickled_module_inside_a_checkpoint_and_in_a_raw_pickle(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "ema": None, "model": files.net()}, tmp_path / "yolo.pt")
    source = load(tmp_path / "yolo.pt", trust_pickle=True)
    assert isinstance(source.model, files.Net)
    assert source.notes == (
        "the module was found under 'model'; beside it are 'epoch', 'ema' (--key takes another)",
    )
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(files.net()))
    assert isinstance(load(tmp_path / "raw.pkl", trust_pickle=True).model, files.Net)


def test_trusted_weights_beside_other_objects(tmp_path: Path) -> None:
    torch.save({"state_dict": files.net().state_dict(), "args": Path("x")}, tmp_path / "w.pt")
    source = load(tmp_path / "w.pt", model=f"{HERE}:Net", trust_pickle=True)
    assert isinstance(source.model, files.Net)
    assert same_weights(files.net(), source.model)


def test_trust_does_not_hinder_honest_files(tmp_path: Path) -> None:
    load(files.write_exported(tmp_path / "a.pt2"), trust_pickle=True)
    load(files.write_old_exported(tmp_path / "b.pt2"), trust_pickle=True)
    load(files.write_scripted(tmp_path / "c.pt"), trust_pickle=True)


def test_a_reference_model_has_inputs_of_its_own_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    source = load("mobileone_s0")
    assert isinstance(source.model, nn.Module)
    assert not source.model.training
    assert (source.name, source.path) == ("mobileone_s0", None)
    assert source.example_inputs is not None
    (inputs,) = source.example_inputs
    assert inputs.shape == (1, 3, 224, 224)
    assert abs(inputs.mean()) < 0.01
    torch.manual_seed(99)
    monkeypatch.setattr("reparamkit.models.create", lambda name: source.model)
    again = load("mobileone_s0").example_inputs
    assert again is not None
    assert torch.equal(inputs, again[0])


def test_a_callable_or_a_module_of_the_current_folder(in_folder: Path) -> None:
    (in_folder / "my_models.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(1, 1, 1)\nready = nn.ReLU()\n"
        "class box:\n    inner = nn.Tanh()\n"
    )
    path = list(sys.path)
    built = load("my_models:build")
    assert isinstance(built.model, nn.Conv2d)
    assert (built.name, built.path, built.example_inputs) == ("build", None, None)
    assert isinstance(load("my_models:ready").model, nn.ReLU)
    assert load("my_models:box.inner").name == "inner"
    assert sys.path == path


def test_a_file_wins_over_a_name(in_folder: Path) -> None:
    (in_folder / "mobileone_s0").write_text("notes")
    with pytest.raises(UnusableInput, match=r"^mobileone_s0 is a text file, beginning 'notes'"):
        load("mobileone_s0")
