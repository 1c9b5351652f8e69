"""Weights are unwrapped, fitted and looked through for NaN."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.finite import non_finite
from reparamkit.loading.weights import (
    find_state_dict,
    fit_state_dict,
    read_state_dict,
    unwrap_state_dict,
)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


STATE = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("wrapped", "where"),
    [
        (STATE, ()),
        ({"state_dict": STATE, "epoch": 3}, ("state_dict",)),
        ({"model": {"state_dict": STATE}, "optimizer": {}}, ("model", "state_dict")),
        ({"model": {"a.weight": torch.ones(9)}, "model_ema": STATE}, ("model_ema",)),
        ({"ema": {"module": STATE}}, ("ema", "module")),
        ({f"module.{name}": value for name, value in STATE.items()}, ()),
        ({f"_orig_mod.module.{name}": value for name, value in STATE.items()}, ()),
        ({"n_averaged": torch.tensor(1)} | {f"module.{name}": value for name, value in STATE.items()}, ()),
        ({**STATE, "a._extra_state": None}, ()),
    ],
)
def test_the_mapping_is_found_in_its_wrappings(wrapped: Any, where: tuple[str, ...]) -> None:
    found, keys = find_state_dict(wrapped)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert keys == where


def test_a_module_and_an_object_that_averages_one() -> None:
    model = net()
    assert unwrap_state_dict(model).keys() == model.state_dict().keys()
    assert unwrap_state_dict(SimpleNamespace(module=model, decay=0.9)).keys() == model.state_dict().keys()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert unwrap_state_dict(averaged.state_dict()).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("obj", "found"),
    [
        ({}, "an empty dict"),
        ({"epoch": 1, "args": None}, "a dict with the keys 'epoch', 'args'"),
        ({str(n): n for n in range(9)}, "'4', and 4 more"),
        ([torch.ones(1)], "a builtins.list"),
        (torch.ones(1), "a torch.Tensor"),
    ],
)
def test_where_there_is_no_mapping_the_message_says_what_was_found(obj: Any, found: str) -> None:
    with pytest.raises(UnusableInput, match="no weights found") as caught:
        unwrap_state_dict(obj)
    assert found in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_of_either_form_is_read(tmp_path: Path, zipped: bool) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert read_state_dict(tmp_path / "w.pt").keys() == STATE.keys()


def test_a_file_that_is_missing_or_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"none\.pt cannot be read: No such file or directory"):
        read_state_dict(tmp_path / "none.pt")
    (tmp_path / "t.pt").write_text("")
    with pytest.raises(UnusableInput, match=r"t\.pt is empty"):
        read_state_dict(tmp_path / "t.pt")


def test_weights_that_fit_are_loaded() -> None:
    source, model = net(), net()
    fit_state_dict(model, source.state_dict())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("longer", ["state", "model"])
def test_one_prefix_on_either_side_is_no_difference(longer: str) -> None:
    source, target = net(), net()
    state = dict(source.state_dict())
    if longer == "state":
        state = {f"model.{name}": value for name, value in state.items()}
        fit_state_dict(target, state)
    else:
        fit_state_dict(nn.ModuleDict({"module": target}), state)
    assert torch.equal(target.get_parameter("0.weight"), source.get_parameter("0.weight"))


def test_the_counter_of_batches_may_be_absent() -> None:
    state = {name: value for name, value in net().state_dict().items() if "num_batches" not in name}
    fit_state_dict(net(), state)


def test_a_model_on_meta_gets_the_weights_too() -> None:
    source = net()
    with torch.device("meta"):
        model = net()
    fit_state_dict(
        model, {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    )
    assert torch.equal(model.get_parameter("0.weight"), source.get_parameter("0.weight"))
    assert not any(value.is_meta for value in model.state_dict().values())


def test_every_difference_is_named_and_counted_and_nothing_is_loaded() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state: dict[str, Tensor] = dict(net().state_dict())
    del state["0.bias"], state["2.bias"]
    state |= {f"extra.{n}": torch.ones(1) for n in range(7)}
    state["0.weight"] = torch.ones(4, 3, 1, 1)
    state["1.bias"] = torch.tensor(1.0)
    with pytest.raises(UnusableInput) as caught:
        fit_state_dict(model, state)
    message = str(caught.value)
    assert "do not fit the model Sequential (9 names in the model, 14 in the weights)" in message
    assert "2 missing from the weights: 0.bias, 2.bias;" in message
    assert "7 not in the model: extra.0, extra.1, extra.2, extra.3, extra.4, and 2 more;" in message
    assert "2 of another shape: 0.weight is 4x3x1x1 in the weights and 4x3x3x3 in the model" in message
    assert "1.bias is a scalar in the weights and 4 in the model" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nan_and_infinite_weights_are_named() -> None:
    model = net()
    assert non_finite(model) == []
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0, 0, 0] = float("nan")
        model.get_buffer("1.running_var")[1] = float("inf")
        model.get_buffer("1.running_mean")[1] = -float("inf")
        model.get_parameter("2.weight").copy_(torch.full((2, 4), float("-inf")))
    assert non_finite(model) == ["0.weight", "2.weight", "1.running_mean", "1.running_var"]


def test_nan_is_found_in_other_types_and_in_an_exported_program() -> None:
    model = nn.Module()
    model.register_buffer("halves", torch.tensor([float("inf")]).half())
    model.register_buffer("eights", torch.tensor([float("nan")]).to(torch.float8_e5m2))
    model.register_buffer("wholes", torch.ones(2, dtype=torch.int64))
    model.register_buffer("holes", torch.tensor([[float("nan"), 0.0]]).to_sparse())
    model.register_buffer("pairs", torch.tensor([complex(0.0, float("nan"))]))
    assert non_finite(model) == ["halves", "eights", "holes", "pairs"]

    linear = nn.Linear(2, 2)
    nn.init.constant_(linear.bias, float("nan"))
    assert non_finite(torch.export.export(linear, (torch.ones(1, 2),))) == ["bias"]


def test_an_attention_mask_is_no_bad_weight() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    assert non_finite(model) == []
