"""Weights as libraries keep them: safetensors, shards, Lightning, timm, YOLO; `key` and what notes say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.source import Source, load

HERE = "tests.loading.test_kept_weights"


class Small(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x))


class Average:
    """An object that keeps an average, as training code writes its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


MODEL = f"{HERE}:Small"


def filled(value: float, width: int = 4) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in Small(width).state_dict().items()}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def value_of(source: Source) -> float:
    assert isinstance(source.model, nn.Module)
    return float(source.model.get_parameter("conv.weight").detach().flatten()[0].item())


def test_safetensors_in_a_file_and_its_shards(tmp_path: Path) -> None:
    state = filled(2.0)
    save_file(state, tmp_path / "whole.safetensors")
    source = load(tmp_path / "whole.safetensors", model=MODEL)
    assert (value_of(source), source.name, source.notes) == (2.0, "whole", ())
    assert (
        value_of(load(tmp_path / "whole.safetensors", model="tests/loading/test_kept_weights.py:Small")) == 2
    )
    folder = tmp_path / "sharded"
    folder.mkdir()
    names = sorted(state)
    save_file({name: state[name] for name in names[:3]}, folder / "m-1.safetensors")
    save_file({name: state[name] for name in names[3:]}, folder / "m-2.safetensors")
    placed = {name: f"m-{1 if name in names[:3] else 2}.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert value_of(load(folder / "model.safetensors.index.json", model=MODEL)) == 2
    assert load(folder / "model.safetensors.index.json", model=MODEL).name == "model"
    assert value_of(load(folder, model=MODEL)) == 2
    (folder / "m-2.safetensors").unlink()
    with pytest.raises(UnusableInput, match=r"names the shard 'm-2\.safetensors'"):
        load(folder, model=MODEL)


def test_a_folder_of_torch_saves_files_in_shards(tmp_path: Path) -> None:
    state, names = filled(2.5), sorted(filled(2.5))
    torch.save({name: state[name] for name in names[:3]}, tmp_path / "p-1.bin")
    torch.save({name: state[name] for name in names[3:]}, tmp_path / "p-2.bin")
    placed = {name: f"p-{1 if name in names[:3] else 2}.bin" for name in names}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    assert value_of(load(tmp_path, model=MODEL)) == 2.5


def test_a_folder_without_a_config_says_what_is_missing(tmp_path: Path) -> None:
    save_file(filled(1.0), tmp_path / "model.safetensors")
    with pytest.raises(UnusableInput, match=r"holds weights and no config\.json, .* pass --model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"width": 4}')
    with pytest.raises(UnusableInput, match=r"a config\.json that names no architecture"):
        load(tmp_path)
    assert value_of(load(tmp_path, model=MODEL)) == 1
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnusableInput, match=r"with a config\.json and without weights"):
        load(tmp_path)


def test_an_adapter_alone_says_how_to_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "bert"}')
    with pytest.raises(
        UnusableInput,
        match=r"an adapter alone \(of bert\); give the network as SOURCE, and this as --adapter ",
    ):
        load(tmp_path)


def test_one_name_of_tied_weights_is_enough(tmp_path: Path) -> None:
    save_file({"table.weight": torch.ones(5, 3)}, tmp_path / "w.safetensors")
    model = load(tmp_path / "w.safetensors", model=f"{HERE}:Tied").model
    assert isinstance(model, Tied)
    assert model.head.weight is model.table.weight
    assert bool((model.head.weight == 1).all())


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        (torch.float16, "5 weights stored in float16 widened to float32"),
        (torch.bfloat16, "5 weights stored in bfloat16 widened to float32"),
        (torch.float64, "5 weights stored in float64 rounded to float32"),
        (torch.float32, ""),
    ],
)
def test_a_note_says_what_type_was_widened(tmp_path: Path, dtype: torch.dtype, note: str) -> None:
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in filled(0.5).items()}
    del state["norm.bias"]
    state["norm.bias"] = torch.zeros(4)
    save_file(state, tmp_path / "w.safetensors")
    notes = load(tmp_path / "w.safetensors", model=MODEL).notes
    assert notes == ((note,) if note else ())


def test_integers_are_no_weights(tmp_path: Path) -> None:
    state = filled(1.0)
    state["conv.weight"] = state["conv.weight"].to(torch.uint8)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UnusableInput, match=r"1 no floating-point numbers: conv\.weight is uint8"):
        load(tmp_path / "w.safetensors", model=MODEL)


def test_lightning_with_a_loss_beside_the_model(tmp_path: Path) -> None:
    state = {**under("model", filled(3.0)), "loss.weight": torch.ones(2), "loss.bias": torch.ones(1)}
    torch.save({"epoch": 2, "state_dict": state, "hyper_parameters": {"lr": 0.1}}, tmp_path / "l.ckpt")
    source = load(tmp_path / "l.ckpt", model=MODEL)
    assert value_of(source) == 3
    assert source.notes == (
        "the weights were found under 'state_dict'; beside it are 'epoch', 'hyper_parameters' "
        "(--key takes another)",
        "the weights under 'model' were taken; 2 others were left: loss.weight, loss.bias",
    )


def test_two_that_fit_have_to_be_told_apart(tmp_path: Path) -> None:
    state = {**under("model", filled(3.0)), **under("ema.module", filled(4.0))}
    torch.save({"state_dict": state}, tmp_path / "l.ckpt")
    with pytest.raises(UnusableInput, match=r"under 'model' and 'ema\.module' fit .* --key model"):
        load(tmp_path / "l.ckpt", model=MODEL)
    assert value_of(load(tmp_path / "l.ckpt", model=MODEL, key="state_dict.model")) == 3
    source = load(tmp_path / "l.ckpt", model=MODEL, key="state_dict.ema.module")
    assert value_of(source) == 4
    assert source.notes[0] == "the weights were found under 'state_dict' / 'ema.module'"


CHECKPOINT: dict[str, Any] = {
    "model": filled(1.0),
    "ema": {"model": filled(2.0), "decay": 0.99},
    "runs": [{"state_dict": filled(3.0)}],
    "a.b": filled(4.0),
}


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        (None, 2, "'ema' / 'model'"),
        ("model", 1, "'model'"),
        ("ema.model", 2, "'ema' / 'model'"),
        ("ema", 2, "'ema' / 'model'"),
        ("runs.0.state_dict", 3, "'runs' / '0' / 'state_dict'"),
        ("runs.0", 3, "'runs' / '0' / 'state_dict'"),
        ("a.b", 4, "'a.b'"),
    ],
)
def test_key_chooses_and_a_note_says_out_of_what(
    tmp_path: Path, key: str | None, value: float, where: str
) -> None:
    torch.save(CHECKPOINT, tmp_path / "w.pt")
    source = load(tmp_path / "w.pt", model=MODEL, key=key)
    assert value_of(source) == value
    (note,) = source.notes
    assert note.startswith(f"the weights were found under {where}; beside it are ")
    assert note.endswith(" (--key takes another)")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("teacher", "it has nothing under the key 'teacher'; it holds a dict with the keys 'model', 'ema'"),
        (
            "ema.modl",
            "nothing under the key 'ema.modl'; under 'ema' there is a dict with the keys 'model', 'decay'",
        ),
        ("runs.7", "nothing under the key 'runs.7'; under 'runs' there is a builtins.list"),
        ("ema.decay", "no weights found"),
        ("model.nothing", "it has nothing under the key 'model.nothing'"),
    ],
)
def test_a_key_that_is_not_there_names_those_that_are(tmp_path: Path, key: str, words: str) -> None:
    torch.save(CHECKPOINT, tmp_path / "w.pt")
    with pytest.raises(UnusableInput) as caught:
        load(tmp_path / "w.pt", model=MODEL, key=key)
    assert words in str(caught.value)


def test_a_prefix_of_safetensors_by_key(tmp_path: Path) -> None:
    save_file({**under("net", filled(5.0)), **under("old", filled(6.0))}, tmp_path / "w.safetensors")
    assert value_of(load(tmp_path / "w.safetensors", model=MODEL, key="old")) == 6


def test_a_checkpoint_of_timm_says_which_network_it_is_of(tmp_path: Path) -> None:
    settings = argparse.Namespace(lr=0.1, opt="sgd")
    held = {"arch": "resnet18", "state_dict": filled(1.0), "state_dict_ema": filled(2.0), "args": settings}
    torch.save(held, tmp_path / "w.pth.tar")
    with pytest.raises(UnusableInput, match=r"it says --model timm:resnet18"):
        load(tmp_path / "w.pth.tar")
    assert value_of(load(tmp_path / "w.pth.tar", model=MODEL)) == 2
    assert value_of(load(tmp_path / "w.pth.tar", model=MODEL, key="state_dict")) == 1


def test_modules_in_half_precision_inside_a_checkpoint_are_widened(tmp_path: Path) -> None:
    model, average = Small().half(), Small(6).half()
    torch.save({"epoch": -1, "model": model, "ema": average}, tmp_path / "yolo.pt")
    with pytest.raises(UntrustedPickle, match="--trust-pickle"):
        load(tmp_path / "yolo.pt")
    source = load(tmp_path / "yolo.pt", trust_pickle=True)
    assert isinstance(source.model, Small)
    assert source.model.conv.out_channels == 6
    assert source.model.conv.weight.dtype is torch.float32
    assert source.notes == (
        "the module was found under 'ema'; beside it are 'epoch', 'model' (--key takes another)",
        "the module, stored in float16, was widened to float32",
    )
    other = load(tmp_path / "yolo.pt", trust_pickle=True, key="model").model
    assert isinstance(other, Small)
    assert other.conv.out_channels == 4
    conv = load(tmp_path / "yolo.pt", trust_pickle=True, key="model.conv").model
    assert isinstance(conv, nn.Conv2d)
    torch.save(Small().half(), tmp_path / "whole.pt")
    whole = load(tmp_path / "whole.pt", trust_pickle=True)
    assert isinstance(whole.model, Small)
    assert (whole.model.conv.weight.dtype, whole.notes) == (torch.float16, ())


def test_a_key_goes_into_objects_of_a_trusted_pickle(tmp_path: Path) -> None:
    torch.save({"average": Average(Small(6)), "model": Small()}, tmp_path / "w.pt")
    source = load(tmp_path / "w.pt", trust_pickle=True, key="average.module")
    assert isinstance(source.model, Small)
    assert source.model.conv.out_channels == 6
