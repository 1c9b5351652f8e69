from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reparamkit.errors import UnusableInput
from reparamkit.models import create
from reparamkit.models.checkpoints import fitting_variants
from reparamkit.models.families import on_meta
from tests.timm_import import import_timm

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return create("mobileone_s1", num_classes=4, seed=7).state_dict()


def _save(obj: object, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(obj, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda s: s, id="plain"),
        pytest.param(lambda s: {"state_dict": s, "epoch": 3}, id="state_dict"),
        pytest.param(lambda s: {"model": s, "optimizer": {"lr": 0.1}}, id="model"),
        pytest.param(lambda s: {"model_ema": s, "model": {k: v * 0 for k, v in s.items()}}, id="model_ema"),
        pytest.param(lambda s: {f"module.{k}": v for k, v in s.items()}, id="module."),
        pytest.param(lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}, id="both"),
        pytest.param(
            lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, id="half"
        ),
    ],
)
def test_every_layout_loads(state: State, tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    model = create("mobileone_s1", num_classes=4, weights=_save(wrap(state), tmp_path))
    assert not model.training
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, value in loaded.items():
        assert value.dtype == state[name].dtype
        torch.testing.assert_close(value, state[name], rtol=1e-3, atol=1e-3)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["mobileone_s1", "repvgg_a0"])
def test_timm_checkpoints_load(name: str, tmp_path: Path) -> None:
    theirs = import_timm().create_model(name, num_classes=3).eval()
    model = create(name, num_classes=3, weights=_save(theirs.state_dict(), tmp_path))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), rtol=1e-3, atol=1e-4)


def test_the_wrong_variant_is_told_from_the_right_one(state: State, tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as raised:
        create("mobileone_s2", num_classes=4, weights=_save(state, tmp_path))
    message = str(raised.value)
    assert "weights.pth does not fit mobileone_s2" in message
    assert "stage2.1.rbr_conv.0.conv.weight" in message
    assert message.endswith("It fits mobileone_s1 with num_classes=4.")


def test_the_wrong_number_of_classes_is_named(state: State, tmp_path: Path) -> None:
    with pytest.raises(
        UnusableInput, match=r"linear\.weight (?s:.)*It fits mobileone_s1 with num_classes=4\.$"
    ):
        create("mobileone_s1", weights=_save(state, tmp_path))


def test_missing_and_unexpected_keys_are_named(state: State, tmp_path: Path) -> None:
    odd = {("extra.weight" if k == "stage0.rbr_conv.0.conv.weight" else k): v for k, v in state.items()}
    with pytest.raises(UnusableInput) as raised:
        create("mobileone_s1", num_classes=4, weights=_save(odd, tmp_path))
    for part in ("stage0.rbr_conv.0.conv.weight", "extra.weight", "No registered variant fits it."):
        assert part in str(raised.value)


def test_a_folded_checkpoint_is_recognised(tmp_path: Path) -> None:
    folded = {
        "stage0.reparam_conv.weight": torch.zeros(48, 3, 3, 3),
        "linear.weight": torch.zeros(1000, 1024),
    }
    with pytest.raises(UnusableInput, match="saved after its branches had been folded; a checkpoint of the"):
        create("mobileone_s0", weights=_save(folded, tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"absent\.pth"):
        create("repvgg_a0", weights=tmp_path / "absent.pth")


@pytest.mark.slow
def test_variants_are_recognised_by_their_shapes_alone() -> None:
    assert fitting_variants(on_meta("repvgg_b1g2").state_dict()) == ["repvgg_b1g2"]
    assert fitting_variants(on_meta("repvgg_b3g4", num_classes=21).state_dict()) == [
        "repvgg_b3g4 with num_classes=21"
    ]
    with torch.device("meta"):
        assert fitting_variants(import_timm().create_model("repvgg_b0").state_dict()) == ["repvgg_b0"]
