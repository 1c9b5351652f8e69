from __future__ import annotations

import pytest
import torch
from torch import nn

from reparamkit.models import build, create
from reparamkit.models.families import on_meta
from reparamkit.models.replknet import LargeKernelConv, RepLKNet, RepLKNetConfig
from reparamkit.models.stochastic_depth import DropPath, rates


@pytest.mark.parametrize(
    "key",
    [
        "stem.3.bn.running_var",
        "stages.0.blocks.0.prelkb_bn.weight",
        "stages.2.blocks.34.large_kernel.lkb_origin.conv.weight",
        "stages.3.blocks.2.large_kernel.small_conv.bn.bias",
        "stages.1.blocks.3.preffn_bn.running_mean",
        "stages.0.blocks.1.pw2.bn.num_batches_tracked",
        "transitions.2.1.conv.weight",
        "norm.weight",
        "head.bias",
    ],
)
def test_parameters_have_the_published_names(key: str) -> None:
    assert key in on_meta("replknet_31b").state_dict()


def test_kernels_and_widths_of_xl() -> None:
    state = on_meta("replknet_xl").state_dict()
    weight = "stages.{}.blocks.0.large_kernel.lkb_origin.conv.weight"
    assert [tuple(state[weight.format(s)].shape) for s in range(4)] == [
        (384, 1, 27, 27),
        (768, 1, 27, 27),
        (1536, 1, 27, 27),
        (3072, 1, 13, 13),
    ]
    assert not any("small_conv" in key for key in state)


def test_the_small_kernel_is_centred_in_the_large_one() -> None:
    """Both branches see the same input, so a 5x5 kernel padded to 13x13 does what the sum does."""
    torch.manual_seed(0)
    branch = LargeKernelConv(4, 13, 5, lambda channels: nn.Identity()).double()
    x = torch.randn(2, 4, 9, 17, dtype=torch.float64)
    weights = branch.state_dict()
    kernel = weights["lkb_origin.conv.weight"].clone()
    kernel[:, :, 4:9, 4:9] += weights["small_conv.conv.weight"]
    expected = nn.functional.conv2d(x, kernel, padding=6, groups=4)
    torch.testing.assert_close(branch(x), expected, rtol=1e-12, atol=1e-12)


def test_a_narrow_network_runs_both_ways() -> None:
    config = RepLKNetConfig((7, 7, 5, 5), (8, 16, 24, 32), expansion=1.5, pairs=(1, 1, 2, 1))
    model = RepLKNet(config, 5, drop_path_rate=0.5)
    logits = model(torch.randn(2, 3, 64, 48))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert model.head.weight.grad is not None


@pytest.mark.slow
def test_the_published_network_stays_in_range() -> None:
    model = create("replknet_31b", num_classes=10)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        y = model(x)
    assert 1e-2 < y.std() < 1e2
    assert (y[0] - y[1]).std() > 1e-2 * y.std()


def test_synchronised_norms_have_the_same_names() -> None:
    with torch.device("meta"):
        model = build("replknet_31b", norm_layer=nn.SyncBatchNorm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.state_dict().keys() == on_meta("replknet_31b").state_dict().keys()


def test_stochastic_depth_grows_linearly_and_keeps_the_expectation() -> None:
    assert rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates(0.3, 1) == [0.0]
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 1)
    torch.manual_seed(0)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_as_a_backbone_it_gives_the_normalised_maps_of_the_stages_asked_for() -> None:
    config = RepLKNetConfig((7, 7, 5, 5), (8, 16, 24, 32), pairs=(1, 1, 1, 1))
    model = RepLKNet(config, out_indices=(1, 3), norm_intermediate_features=True).eval()
    x = torch.randn(1, 3, 64, 96)
    maps = model(x)
    assert [tuple(each.shape) for each in maps] == [(1, 16, 8, 12), (1, 32, 2, 3)]
    with torch.no_grad():
        model.stages[1].get_parameter("norm.bias").add_(1)
    torch.testing.assert_close(model.forward_features(x)[0], maps[0] + 1)
    assert not {"norm.weight", "head.weight"} & set(model.state_dict())
    assert "stages.2.norm.running_mean" in model.state_dict()


def test_without_out_indices_the_features_are_those_that_the_head_reads() -> None:
    model = RepLKNet(RepLKNetConfig((7, 7, 5, 5), (8, 16, 24, 32), pairs=(1, 1, 1, 1)), 5).eval()
    x = torch.randn(1, 3, 64, 64)
    features = model.forward_features(x)
    assert isinstance(features, torch.Tensor)
    assert features.shape == (1, 32, 2, 2)
    torch.testing.assert_close(model.head(model.norm(features).mean((2, 3))), model(x))
