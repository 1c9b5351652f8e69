"""Which parameters decay, and which learn more slowly."""

from __future__ import annotations

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.models import build
from reparamkit.training.groups import decays, layer_numbers, parameter_groups
from tests.timm_import import import_timm


def test_weights_of_layers_decay_and_nothing_else(subtests: pytest.Subtests) -> None:
    chosen = decays(build("fastvit_toy", num_classes=3))
    assert chosen["patch_embed.0.rbr_conv.0.conv.weight"]
    assert chosen["network.7.0.token_mixer.qkv.weight"]
    assert chosen["head.weight"]
    for name in (
        "head.bias",
        "patch_embed.0.rbr_conv.0.bn.weight",
        "network.0.0.layer_scale",
        "network.0.0.convffn.fc1.bias",
    ):
        with subtests.test(str(name)):
            assert not chosen[name]


def test_the_vectors_of_a_convnext_do_not_decay_although_they_have_four_axes() -> None:
    chosen = decays(build("convnextv2_atto", num_classes=3))
    assert not chosen["stages.0.0.grn.gamma"]
    assert chosen["stages.0.0.dwconv.weight"]


def test_what_timms_networks_exempt_does_not_decay() -> None:
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=3)
    chosen = decays(model)
    assert not chosen["pos_embed"]
    assert not chosen["cls_token"]
    assert chosen["blocks.0.attn.qkv.weight"]


def test_every_parameter_is_in_one_group() -> None:
    model = build("convnextv2_atto", num_classes=3)
    groups = parameter_groups(model, 1e-3, 0.05, 0.9)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_the_layers_of_a_convnext_are_those_of_its_authors() -> None:
    numbers = layer_numbers(build("convnextv2_atto", num_classes=3))
    assert numbers["downsample_layers.0.0.weight"] == 0
    assert numbers["stages.0.0.dwconv.weight"] == 1
    assert numbers["downsample_layers.1.0.weight"] == numbers["stages.1.0.norm.weight"] == 3
    assert numbers["stages.3.1.pwconv2.bias"] == 12
    assert numbers["head.weight"] == numbers["norm.weight"] == 13


def test_each_layer_learns_more_slowly_than_the_one_behind_it() -> None:
    model = build("convnextv2_atto", num_classes=3)
    groups = parameter_groups(model, 1e-3, 0.05, 0.8)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(model.get_parameter("head.weight"))] == pytest.approx(1e-3)
    assert rates[id(model.get_parameter("stages.3.1.dwconv.weight"))] == pytest.approx(1e-3 * 0.8)
    assert rates[id(model.get_parameter("downsample_layers.0.0.bias"))] == pytest.approx(1e-3 * 0.8**13)


def test_timms_networks_say_their_layers_themselves() -> None:
    numbers = layer_numbers(import_timm().create_model("resnet18", num_classes=3))
    assert numbers["conv1.weight"] < numbers["layer1.0.conv1.weight"] < numbers["layer4.1.conv2.weight"]


def test_a_network_that_does_not_say_the_order_of_its_layers_is_refused() -> None:
    with pytest.raises(UnusableInput, match="layer_decay needs to know which layer comes after which"):
        parameter_groups(build("repnets_toy", num_classes=3), 1e-3, 0.05, 0.9)
