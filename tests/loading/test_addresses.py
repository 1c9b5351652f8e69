"""Callables by module, by file and with dots alone; a file beside you needs no PYTHONPATH."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.addresses import looks_like_code
from reparamkit.loading.source import load

NETS = """\
from torch import nn
from {near} import WIDTH
class Net(nn.Module):
    def __init__(self, width=WIDTH, act="relu"):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)
        self.act = act
def build(width=WIDTH, act="relu"):
    return Net(width, act)
class box:
    inner = nn.Tanh()
"""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with `pack` (a package), `loose` (none) and `alone.py`; imports are forgotten."""
    before = set(sys.modules)
    for folder, near in (("pack", ".widths"), ("loose", "widths_beside")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nets_here.py").write_text(NETS.format(near=near))
        (tmp_path / folder / f"{near.strip('.')}.py").write_text("WIDTH = 5\n")
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "alone.py").write_text(NETS.format(near="pack.widths"))
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def width(address: str, **options: object) -> int:
    model = load(address, **options).model  # type: ignore[arg-type]
    assert isinstance(model, nn.Module)
    conv = model.get_submodule("conv")
    assert isinstance(conv, nn.Conv2d)
    return conv.out_channels


@pytest.mark.parametrize(
    "address",
    [
        "pack.nets_here:build",
        "pack.nets_here.build",
        "pack.nets_here.Net",
        "pack/nets_here.py:build",
        "./pack/nets_here.py:build",
        "pack/nets_here:Net",
        "alone.py:build",
        "alone:build",
        "loose/nets_here.py:build",
    ],
)
def test_every_spelling_of_a_callable(in_folder: Path, address: str) -> None:
    path = list(sys.path)
    assert width(address) == 5
    assert width(address, model_args="width=7, act='silu'") == 7
    assert width(address, model_args={"width": 9}) == 9
    assert sys.path == path


def test_a_file_elsewhere_and_one_whose_name_is_taken(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(in_folder / "inside")
    assert width(f"{in_folder}/pack/nets_here.py:build") == 5
    assert width("../pack/nets_here.py:build") == 5
    assert width("../loose/nets_here.py:build") == 5
    (in_folder / "inside" / "json.py").write_text("from torch import nn\nnet = nn.ReLU()\n")
    assert isinstance(load("json.py:net").model, nn.ReLU)
    import json

    assert json.loads("1") == 1


def test_what_is_in_a_class_is_found_with_dots_alone(in_folder: Path) -> None:
    assert isinstance(load("pack.nets_here.box.inner").model, nn.Tanh)
    assert load("pack/nets_here.py:box.inner").name == "inner"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "pack.nets_here",
            "'pack.nets_here' is a module; name what in it returns the network: pack.nets_here:Net",
        ),
        (
            "pack/nets_here.py",
            "is Python source; name what in it returns the network: pack/nets_here.py:CALLABLE; ",
        ),
        ("pack/nets_here.py:bild", "pack/nets_here.py has no 'bild'; did you mean pack/nets_here.py:build?"),
        ("pack/nets_her.py:build", "there is no file pack/nets_her.py; did you mean pack/nets_here.py?"),
        (
            "pack.nets_here:bild",
            "the module pack.nets_here has no 'bild'; did you mean pack.nets_here:build?",
        ),
        ("pack.nets_here:build()", "it is called for you; say pack.nets_here:build"),
        ("pack.nets_here:build(width=3)", "say pack.nets_here:build and --model-args 'width=3'"),
        ("no_package:build", "No module named 'no_package', here or installed"),
        ("tim:resnet18", "did you mean timm:resnet18?"),
    ],
)
def test_what_is_wrong_says_what_to_write(in_folder: Path, address: str, words: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        load(address)
    assert words in str(caught.value)


def test_arguments_that_it_does_not_take_are_told_with_those_that_it_does(in_folder: Path) -> None:
    with pytest.raises(UnusableInput, match=r"called with depth=3; it takes \(width=5, act='relu'\)"):
        load("pack.nets_here:build", model_args="depth=3")
    with pytest.raises(UnusableInput, match="is a network already, and takes no --model-args"):
        load("pack.nets_here:box.inner", model_args="depth=3")


def test_what_may_run_code_is_known_by_its_spelling_alone() -> None:
    for name in ("a.b:c", "a/b.py:c", "a.b.c", "./x", "C:\\x.py:c", "a:b"):
        assert looks_like_code(name)
    for name in ("mobileone_s0", "timm:mobileone_s1.apple_in1k", "torchvision:resnet18"):
        assert not looks_like_code(name)
