"""The dense masked encoder against a sparse one, written out site by site."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.models import build, create, info, randomize
from reparamkit.models import fcmae as fcmae_module
from reparamkit.models.convnextv2 import ConvNeXtV2, ConvNeXtV2Config
from reparamkit.models.fcmae import FCMAE, MaskedBlock, patch_loss, patchify, random_mask, unpatchify
from reparamkit.models.fcmae_weights import dense_from_sparse, encoder_weights, transfer

TINY = ConvNeXtV2Config((1, 2, 1, 1), (4, 6, 8, 10))
Sites = Tensor
"""(S, 3): image, row and column of every active position."""


def _model() -> FCMAE:
    return randomize(FCMAE(TINY, decoder_embed_dim=12).double(), seed=1)


def _images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _mask() -> Tensor:
    return torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]], dtype=torch.float64)


def _sparse_convolution(
    sites: Sites, values: Tensor, outputs: Sites, weight: Tensor, bias: Tensor, stride: int
) -> Tensor:
    """Sum over the active neighbours of each output site; a depthwise weight has one input channel."""
    side = weight.shape[-1]
    reach = side // 2 if stride == 1 else 0
    rows = {tuple(site): row for row, site in enumerate(sites.tolist())}
    result = bias.repeat(len(outputs), 1)
    for row, (image, i, j) in enumerate(outputs.tolist()):
        for di in range(side):
            for dj in range(side):
                source = rows.get((image, i * stride + di - reach, j * stride + dj - reach))
                if source is None:
                    continue
                tap = weight[:, :, di, dj]
                depthwise = tap.shape[1] == 1
                result[row] += tap[:, 0] * values[source] if depthwise else tap @ values[source]
    return result


def _sparse_block(block: MaskedBlock, sites: Sites, values: Tensor) -> Tensor:
    inner = _sparse_convolution(sites, values, sites, block.dwconv.weight, _bias(block.dwconv), 1)
    inner = block.act(block.pwconv1(block.norm(inner)))
    norms = inner.norm(dim=0, keepdim=True)
    relative = norms / (norms.mean() + 1e-6)
    inner = block.grn.gamma[0, 0] * (inner * relative) + block.grn.beta[0, 0] + inner
    out: Tensor = values + block.pwconv2(inner)
    return out


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _sparse_encoder(model: FCMAE, images: Tensor, mask: Tensor) -> tuple[Sites, Tensor]:
    encoder = model.encoder
    active = 1 - mask.reshape(2, 2, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    sites = active.nonzero()
    values = encoder.downsample_layers[0](images).permute(0, 2, 3, 1)[tuple(sites.T)]
    for downsample, stage in zip(encoder.downsample_layers, encoder.stages, strict=True):
        assert isinstance(downsample, nn.Sequential)
        assert isinstance(stage, nn.ModuleList)
        if isinstance(downsample[1], nn.Conv2d):
            norm = downsample[0]
            values = F.layer_norm(
                values, values.shape[1:], norm.get_parameter("weight"), norm.get_parameter("bias"), 1e-6
            )
            coarser = torch.unique(sites // torch.tensor([1, 2, 2]), dim=0)
            convolution = downsample[1]
            values = _sparse_convolution(sites, values, coarser, convolution.weight, _bias(convolution), 2)
            sites = coarser
        for block in stage:
            assert isinstance(block, MaskedBlock)
            values = _sparse_block(block, sites, values)
    return sites, values


def test_the_encoder_is_the_sparse_one() -> None:
    model, images, mask = _model(), _images(), _mask()
    with torch.no_grad():
        dense = model.encoder(images, mask)
        sites, values = _sparse_encoder(model, images, mask)
    assert dense.shape == (2, 10, 2, 3)
    torch.testing.assert_close(dense.permute(0, 2, 3, 1)[tuple(sites.T)], values, rtol=1e-9, atol=1e-9)
    assert torch.all(dense.permute(0, 2, 3, 1)[mask.reshape(2, 2, 3) == 1] == 0)


def test_masked_positions_are_zero_wherever_an_operator_reads_them() -> None:
    model, mask = _model(), _mask()
    read: list[Tensor] = []
    kinds = (nn.Conv2d, nn.Linear, nn.LayerNorm, fcmae_module.MaskedGRN)
    stem = model.encoder.get_submodule("downsample_layers.0.0")
    for module in model.encoder.modules():
        if isinstance(module, kinds) and module is not stem:
            module.register_forward_pre_hook(lambda m, args: read.append(_channels_last(m, args[0])))
    with torch.no_grad():
        model.encoder(_images(), mask)
    assert len(read) == 5 * 5 + 3
    for values in read:
        removed = mask.reshape(2, 2, 3).repeat_interleave(values.shape[1] // 2, 1)
        removed = removed.repeat_interleave(values.shape[2] // 3, 2) == 1
        assert torch.all(values[removed] == 0)
        assert not torch.all(values[~removed] == 0)


def _channels_last(module: nn.Module, x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if isinstance(module, nn.Conv2d) else x


def test_removed_pixels_do_not_reach_the_prediction() -> None:
    model, mask = _model(), _mask()
    images, other = _images(0), _images(1)
    removed = mask.reshape(2, 1, 2, 3).repeat_interleave(32, 2).repeat_interleave(32, 3) == 1
    with torch.no_grad():
        _, pred, _ = model(images, mask)
        _, same, _ = model(torch.where(removed, other, images), mask)
        _, different, _ = model(torch.where(removed, images, other), mask)
    assert torch.equal(pred, same)
    assert not torch.allclose(pred, different)


def test_removed_patches_start_from_the_mask_token() -> None:
    model, mask = _model(), _mask()
    given: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda m, args: given.append(args[0]))
    with torch.no_grad():
        model(_images(), mask)
    tokens = given[0].permute(0, 2, 3, 1)[mask.reshape(2, 2, 3) == 1]
    assert torch.equal(tokens, model.mask_token.reshape(1, -1).expand_as(tokens))


def test_the_loss_counts_the_removed_patches_alone() -> None:
    images, mask = _images(), _mask()
    target = patchify(images).transpose(1, 2).reshape(2, 3072, 2, 3)
    error = torch.zeros(2, 6, dtype=torch.float64)
    error[0, 0], error[0, 1], error[1, 4] = 2, 100, 1
    pred = target + error.reshape(2, 1, 2, 3)
    loss = patch_loss(images, pred, mask, normalise=False)
    assert loss.item() == pytest.approx((4 + 1) / 7)


def test_the_normalised_loss_has_patches_of_unit_variance_as_target() -> None:
    images, mask = 7 + 3 * _images(), _mask()
    patches = patchify(images)
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    pred = target.transpose(1, 2).reshape(2, 3072, 2, 3)
    assert patch_loss(images, pred, mask, normalise=True).item() == pytest.approx(0, abs=1e-20)
    zero = patch_loss(images, torch.zeros_like(pred), mask, normalise=True)
    assert zero.item() == pytest.approx(3071 / 3072, rel=1e-5)


def test_patches_are_row_by_row_with_channels_innermost() -> None:
    images = torch.arange(2 * 3 * 64 * 96, dtype=torch.float64).reshape(2, 3, 64, 96)
    patches = patchify(images)
    assert patches.shape == (2, 6, 3072)
    assert torch.equal(patches[1, 4].reshape(32, 32, 3), images[1, :, 32:, 32:64].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 2, 3), images)


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(49, 0.6, 19), (6, 0.5, 3), (4, 0.9, 0)])
def test_masks_keep_the_published_number_of_patches(patches: int, ratio: float, kept: int) -> None:
    first, again = (random_mask(50, patches, ratio, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.all((first == 0).sum(1) == kept)
    assert torch.all((first == 0) | (first == 1))
    if kept:
        assert torch.all((first == 0).any(0))


@pytest.mark.parametrize("ratio", [0, 1, -0.1])
def test_a_ratio_that_removes_nothing_or_everything_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask ratio has to lie between 0 and 1"):
        random_mask(1, 4, ratio)


def test_sizes_that_do_not_fit_are_refused() -> None:
    model = _model()
    with pytest.raises(ValueError, match="multiples of 32, these are 64 and 80"):
        model(torch.zeros(1, 3, 64, 80, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"is \(2, 6\), this one is \(2, 4\)"):
        model(_images(), torch.ones(2, 4))


def test_a_training_step_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = FCMAE(TINY, decoder_embed_dim=8, norm_pix_loss=True)
    loss, pred, mask = model(_images().float(), generator=torch.Generator().manual_seed(0))
    loss.backward()
    assert pred.shape == (2, 3072, 2, 3)
    assert mask.sum().item() == 2 * 4
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def _sparse_state(dense: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout that the original saves, from ours."""
    sparse = {}
    for key, value in dense.items():
        is_sparse = key.startswith("encoder.") and not key.startswith("encoder.downsample_layers.0.")
        is_norm = ".norm." in key or (".downsample_layers." in key and key.split(".")[-2] == "0")
        if not is_sparse:
            sparse[key] = value
        elif is_norm:
            sparse[".ln.".join(key.rsplit(".", 1))] = value
        elif ".pwconv" in key:
            sparse[".linear.".join(key.rsplit(".", 1))] = value
        elif ".grn." in key:
            sparse[key] = value.reshape(1, -1)
        elif key.endswith("bias"):
            sparse[key] = value[None]
        else:
            outputs, inputs, height, width = value.shape
            kernel = torch.stack([value[:, :, i, j].T for j in range(width) for i in range(height)])
            name = key.removesuffix("weight") + "kernel"
            sparse[name] = kernel[:, 0] if inputs == 1 else kernel
            assert outputs == sparse[name].shape[-1]
    return sparse


def test_sparse_checkpoints_become_dense() -> None:
    dense = _model().state_dict()
    sparse = _sparse_state(dense)
    assert sparse["encoder.downsample_layers.2.1.kernel"].shape == (4, 6, 8)
    assert sparse["encoder.downsample_layers.2.1.bias"].shape == (1, 8)
    assert sparse["encoder.stages.1.0.dwconv.kernel"].shape == (49, 6)
    assert sparse["encoder.stages.1.0.grn.gamma"].shape == (1, 24)
    assert {"encoder.downsample_layers.1.0.ln.weight", "encoder.stages.0.0.norm.ln.bias"} <= sparse.keys()
    for state in (sparse, dense):
        converted = dense_from_sparse(state)
        assert converted.keys() == dense.keys()
        assert all(torch.equal(value, dense[key]) for key, value in converted.items())


def test_the_encoder_carries_over_into_the_classifier() -> None:
    model = _model()
    images = _images()[:1]
    classifier = randomize(ConvNeXtV2(TINY, num_classes=3).double(), seed=5)
    norm = classifier.norm.weight.clone()
    transfer(_sparse_state(model.state_dict()), classifier)
    features: list[Tensor] = []
    classifier.norm.register_forward_pre_hook(lambda m, args: features.append(args[0]))
    with torch.no_grad():
        classifier(images)
        # With one image and nothing removed, the norms over batch and image are the same.
        expected = model.encoder(images, torch.zeros(1, 6)).mean((2, 3))
    torch.testing.assert_close(features[0], expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(classifier.norm.weight, norm)
    assert 0 < classifier.head.weight.abs().max() < 1.2e-4
    assert torch.all(classifier.head.bias == 0)


def test_the_encoder_of_another_variant_is_refused() -> None:
    classifier = ConvNeXtV2(ConvNeXtV2Config((1, 1, 1, 1), (4, 6, 8, 10)), num_classes=3)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    with pytest.raises(UnusableInput, match=r"stages\.1\.1\.dwconv\.weight"):
        transfer(_model().state_dict(), classifier)
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())


def test_published_sizes_and_names() -> None:
    with torch.device("meta"):
        model = fcmae_module.build("convnextv2_atto")
        classifier = build("convnextv2_atto").state_dict()
    state = model.state_dict()
    shared = encoder_weights(state)
    assert set(classifier) - set(shared) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert {key: value.shape for key, value in shared.items()} == {
        key: classifier[key].shape for key in shared
    }
    assert state["mask_token"].shape == (1, 512, 1, 1)
    assert state["proj.weight"].shape == (512, 320, 1, 1)
    assert state["pred.bias"].shape == (3072,)
    assert "decoder.0.grn.gamma" in state


def test_a_sparse_checkpoint_opens_by_name(tmp_path: Path) -> None:
    model = create("fcmae_atto", seed=3)
    path = tmp_path / "pretrained.pth"
    torch.save({"model": _sparse_state(model.state_dict())}, path)
    loaded = create("fcmae_atto", weights=path).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())
    with pytest.raises(UnusableInput, match=r"does not fit fcmae_nano: [\s\S]*\nIt fits fcmae_atto\.$"):
        create("fcmae_nano", weights=path)


def test_it_has_no_classes_to_count() -> None:
    with pytest.raises(TypeError, match="num_classes"):
        create("fcmae_atto", num_classes=10)


def test_the_example_of_the_registry_removes_six_patches_of_ten() -> None:
    images, mask = info("fcmae_atto").example_inputs()
    assert images.shape == (1, 3, 224, 224)
    assert mask.dtype is torch.bool
    assert (mask.shape, int(mask.sum())) == ((1, 49), 49 - 19)
