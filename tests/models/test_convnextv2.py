from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from reparamkit.models import build, create
from reparamkit.models.convnextv2 import GRN, ChannelNorm, ConvNeXtV2
from reparamkit.models.families import on_meta, resolve
from tests.timm_import import import_timm


@pytest.mark.parametrize(
    "key",
    [
        "downsample_layers.0.0.weight",
        "downsample_layers.0.1.bias",
        "downsample_layers.3.1.weight",
        "stages.2.5.dwconv.bias",
        "stages.0.1.norm.weight",
        "stages.3.0.pwconv1.weight",
        "stages.3.0.grn.gamma",
        "stages.3.0.grn.beta",
        "norm.weight",
        "head.bias",
    ],
)
def test_parameters_have_the_published_names(key: str) -> None:
    assert key in on_meta("convnextv2_atto").state_dict()


def test_gains_of_the_response_norm_have_the_published_shape() -> None:
    assert on_meta("convnextv2_atto").state_dict()["stages.0.0.grn.gamma"].shape == (1, 1, 1, 160)


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnextv2_nano", "convnextv2_tiny", "convnextv2_huge"])
def test_timm_parameters_carry_over(name: str) -> None:
    with torch.device("meta"):
        theirs = import_timm().create_model(name).state_dict()
    ours = on_meta(name).state_dict()
    converted = resolve(name)[1].renamed(theirs)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


def test_outputs_are_timms() -> None:
    model = create("convnextv2_atto", num_classes=10).double()
    timm_model = import_timm().create_model("convnextv2_atto", num_classes=10).double().eval()
    converted = resolve("convnextv2_atto")[1].renamed(timm_model.state_dict())
    own = model.state_dict()
    for theirs, ours in zip(timm_model.state_dict().values(), converted, strict=True):
        theirs.copy_(own[ours].reshape(theirs.shape))
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x)
        torch.testing.assert_close(y, timm_model(x), rtol=1e-9, atol=1e-9)
    assert 1e-2 < y.std() < 1e2


def test_channel_norm_is_a_layer_norm_of_every_position() -> None:
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(ChannelNorm(6).double()(x), expected)


def test_the_response_norm_weighs_channels_by_their_energy() -> None:
    grn = GRN(2).double()
    torch.nn.init.ones_(grn.gamma)
    x = torch.ones(1, 4, 4, 2, dtype=torch.float64)
    x[..., 1] = 3
    # norms 4 and 12, mean 8: weights 0.5 and 1.5
    assert grn(x)[0, 0, 0].tolist() == pytest.approx([1.5, 7.5], rel=1e-6)


def test_the_response_norm_starts_as_the_identity_and_training_runs() -> None:
    model = build("convnextv2_atto", num_classes=5, drop_path_rate=0.1, head_init_scale=0.5)
    assert isinstance(model, ConvNeXtV2)
    grn = model.get_submodule("stages.1.0.grn")
    x = torch.randn(1, 2, 2, 320)
    assert torch.equal(grn(x), x)
    assert 0.005 < model.head.weight.std() < 0.015
    logits = model(torch.randn(2, 3, 64, 64))
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_head_reads_the_features() -> None:
    model = create("convnextv2_atto", num_classes=3)
    x = torch.randn(2, 3, 64, 32)
    features = cast(Any, model).forward_features(x)
    assert features.shape == (2, 320)
    torch.testing.assert_close(model.get_submodule("head")(features), model(x))
