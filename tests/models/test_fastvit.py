from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reparamkit.models import build, create
from reparamkit.models.families import on_meta, resolve
from reparamkit.models.fastvit import FastViT, LargeKernelConv, RepMixer
from tests.timm_import import import_timm


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fastvit_t8", "patch_embed.2.rbr_skip.running_mean"),
        ("fastvit_t8", "network.0.0.token_mixer.norm.rbr_skip.num_batches_tracked"),
        ("fastvit_t8", "network.2.1.token_mixer.mixer.rbr_scale.conv.weight"),
        ("fastvit_t8", "network.6.1.convffn.conv.bn.running_var"),
        ("fastvit_t8", "network.5.proj.0.small_conv.conv.weight"),
        ("fastvit_sa12", "network.3.proj.1.rbr_conv.0.bn.bias"),
        ("fastvit_sa12", "network.6.pe.bias"),
        ("fastvit_sa12", "network.7.0.layer_scale_2"),
        ("fastvit_sa12", "network.7.1.token_mixer.qkv.weight"),
        ("fastvit_sa12", "conv_exp.se.reduce.weight"),
        ("fastvit_sa12", "head.bias"),
    ],
)
def test_parameters_have_the_published_names(name: str, key: str) -> None:
    assert key in on_meta(name).state_dict()


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_s12", "fastvit_ma36"])
def test_timm_parameters_carry_over(name: str) -> None:
    with torch.device("meta"):
        theirs = import_timm().create_model(name).state_dict()
    ours = on_meta(name).state_dict()
    converted = resolve(name)[1].renamed(theirs)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_outputs_are_timms(name: str) -> None:
    model = create(name, num_classes=10).double()
    timm_model = import_timm().create_model(name, num_classes=10).double().eval()
    converted = resolve(name)[1].renamed(timm_model.state_dict())
    own = model.state_dict()
    for theirs, ours in zip(timm_model.state_dict().values(), converted, strict=True):
        theirs.copy_(own[ours])
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x)
        torch.testing.assert_close(y, timm_model(x), rtol=1e-9, atol=1e-9)
    assert 1e-2 < y.std() < 1e2


def test_the_token_mixer_is_a_difference_of_affine_maps() -> None:
    mixer = create("fastvit_t8", num_classes=2).get_submodule("network.0.0.token_mixer").double()
    assert isinstance(mixer, RepMixer)
    a, b = torch.randn(2, 2, 48, 9, 9, dtype=torch.float64)
    zero = torch.zeros_like(a)
    torch.testing.assert_close(mixer(a + b), mixer(a) + mixer(b) - mixer(zero), rtol=1e-9, atol=1e-9)


def test_the_large_kernel_convolution_drops_its_activation() -> None:
    branch = LargeKernelConv(4, 8).double().eval()
    x = torch.randn(1, 4, 9, 8, dtype=torch.float64)
    called: list[Tensor] = []
    branch.activation.register_forward_hook(lambda module, args, out: called.append(out))
    y = branch(x)
    torch.testing.assert_close(y, branch.lkb_origin(x) + branch.small_conv(x))
    assert y.shape == (1, 8, 5, 4)
    assert len(called) == 1
    assert not torch.allclose(y, called[0])


@pytest.mark.parametrize(("name", "keys"), [("fastvit_t8", 462), ("fastvit_sa12", 504)])
def test_fork_feat_gives_four_normalised_maps_and_has_no_head(name: str, keys: int) -> None:
    model = create(name, fork_feat=True)
    with torch.no_grad():
        shapes = [tuple(feature.shape) for feature in model(torch.randn(1, 3, 64, 96))]
    widths = [model.get_parameter(f"norm{i}.weight").numel() for i in (0, 2, 4, 6)]
    assert shapes == [(1, width, 16 >> i, 24 >> i) for i, width in enumerate(widths)]
    state = model.state_dict()
    assert not any(key.startswith(("conv_exp", "head")) for key in state)
    whole = on_meta(name).state_dict()
    assert keys == len(whole)
    assert len(state) == keys - sum(key.startswith(("conv_exp", "head")) for key in whole) + 4 * 5


def test_the_last_feature_of_attention_variants_precedes_stage_4() -> None:
    model = create("fastvit_sa12", fork_feat=True)
    seen: dict[str, Tensor] = {}
    model.get_submodule("network.6").register_forward_hook(lambda m, a, out: seen.update(encoding=out))
    with torch.no_grad():
        *_, last = model(torch.randn(1, 3, 64, 64))
        assert torch.equal(last, model.get_submodule("norm6")(seen["encoding"]))


def test_training_runs_from_the_published_initialisation() -> None:
    model = build("fastvit_t8", num_classes=5, drop_path_rate=0.1)
    assert isinstance(model, FastViT)
    scales = [p for key, p in model.named_parameters() if "layer_scale" in key]
    assert len(scales) == 20
    assert all(torch.all(scale == 1e-5) for scale in scales)
    logits = model(torch.randn(2, 3, 64, 64))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert model.head.weight.grad is not None


def test_the_tokens_are_what_the_last_block_reads() -> None:
    model = build("fastvit_t8", num_classes=3).eval()
    assert isinstance(model, FastViT)
    x = torch.randn(1, 3, 64, 96)
    embedded = model.forward_embeddings(x)
    assert embedded.shape == (1, 48, 16, 24)
    tokens = model.forward_tokens(embedded)
    assert isinstance(tokens, torch.Tensor)
    assert tokens.shape == (1, 384, 2, 3)
    torch.testing.assert_close(model.head(model.gap(model.conv_exp(tokens)).flatten(1)), model(x))
