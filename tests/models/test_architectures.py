"""Sizes against the published networks, and the forward pass against the definition and against timm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reparamkit.models import build, create, info, names
from reparamkit.models.families import on_meta, resolve
from reparamkit.models.mobileone import MobileOneBlock
from reparamkit.models.repvgg import RepVGGBlock
from tests.models.published import PUBLISHED
from tests.timm_import import import_timm


def test_every_registered_network_has_a_published_size() -> None:
    published = [name for name in names() if not name.startswith("fcmae") and not name.endswith("_toy")]
    assert published == list(PUBLISHED)


@pytest.mark.diagonal(10)
@pytest.mark.parametrize("name", PUBLISHED)
def test_size_is_the_published_one(name: str) -> None:
    published = PUBLISHED[name]
    assert round(info(name).parameters / 1e6, 3) == published.millions
    assert len(on_meta(name).state_dict()) == published.keys


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("mobileone", "repvgg"))])
def test_size_after_folding_is_that_of_the_authors_own_fold(name: str) -> None:
    assert round(info(name).folded_parameters / 1e6, 3) == PUBLISHED[name].folded_millions


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("replknet", "fastvit"))])
def test_size_after_folding_is_smaller_than_that_of_the_authors_own_fold(name: str) -> None:
    authors = PUBLISHED[name].folded_millions
    assert authors is not None
    assert authors * 0.99 < info(name).folded_parameters / 1e6 < authors


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "mobileone_s4",
            [
                "stage0.rbr_conv.0.conv.weight",
                "stage0.rbr_scale.bn.running_var",
                "stage1.1.rbr_conv.0.bn.weight",
                "stage2.3.rbr_skip.num_batches_tracked",
                "stage3.10.se.reduce.weight",
                "stage4.1.se.expand.bias",
                "linear.weight",
            ],
        ),
        (
            "repvgg_d2se",
            [
                "stage0.rbr_dense.conv.weight",
                "stage1.0.rbr_1x1.bn.bias",
                "stage3.23.rbr_identity.running_mean",
                "stage2.1.se.down.weight",
                "stage4.0.se.up.bias",
                "linear.bias",
            ],
        ),
    ],
)
def test_parameters_have_the_published_names(name: str, keys: list[str]) -> None:
    assert not set(keys) - set(on_meta(name).state_dict())


def test_the_mobileone_stem_has_one_convolution_branch_and_the_stages_four() -> None:
    stem, block = (on_meta("mobileone_s0").get_submodule(path) for path in ("stage0", "stage1.0"))
    assert isinstance(stem, MobileOneBlock)
    assert isinstance(block, MobileOneBlock)
    assert (len(stem.rbr_conv), len(block.rbr_conv)) == (1, 4)


def test_squeeze_excite_sits_in_the_last_half_of_stage_3_and_in_stage_4_of_mobileone_s4() -> None:
    keys = on_meta("mobileone_s4").state_dict()
    blocks = {key.split(".se.")[0] for key in keys if ".se." in key}
    assert blocks == {f"stage3.{i}" for i in range(10, 20)} | {"stage4.0", "stage4.1"}


def test_every_second_repvgg_block_up_to_the_26th_is_grouped() -> None:
    model = on_meta("repvgg_b2g4")
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock)]
    grouped = [i for i, block in enumerate(blocks) if block.rbr_1x1.get_submodule("conv").groups == 4]
    assert grouped == list(range(2, 27, 2))


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0"])
def test_forward_and_backward_run_from_the_published_initialisation(name: str) -> None:
    model = build(name, num_classes=7)
    logits = model(torch.randn(2, 3, 64, 64))
    logits.square().sum().backward()
    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_mobileone_block_is_the_sum_of_its_branches() -> None:
    torch.manual_seed(0)
    block = MobileOneBlock(6, 6, 3, padding=1, groups=6, conv_branches=3).double()
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    assert block.rbr_skip is not None
    assert block.rbr_scale is not None
    total = block.rbr_skip(x) + block.rbr_scale(x) + sum(branch(x) for branch in block.rbr_conv)
    torch.testing.assert_close(block(x), total.relu(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_missing_branch_adds_the_integer_zero(kernel: int) -> None:
    """The traced sums hold `+ 0`, as those of the original do: folding engines have to see through them."""
    graph = torch.fx.symbolic_trace(MobileOneBlock(4, 8, kernel, padding=kernel // 2)).graph
    assert any(0 in node.args for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("name", ["mobileone_s0", "mobileone_s4", "repvgg_a0", "repvgg_b1g4", "repvgg_d2se"])
def test_timm_parameters_carry_over(name: str) -> None:
    with torch.device("meta"):
        theirs = import_timm().create_model(name).state_dict()
    ours = on_meta(name).state_dict()
    converted = resolve(name)[1].renamed(theirs)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0"])
def test_outputs_are_timms(name: str) -> None:
    model = create(name, num_classes=10).double()
    timm_model = import_timm().create_model(name, num_classes=10).double().eval()
    converted = resolve(name)[1].renamed(timm_model.state_dict())
    own = model.state_dict()
    for theirs, ours in zip(timm_model.state_dict().values(), converted, strict=True):
        theirs.copy_(own[ours])
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), timm_model(x), rtol=1e-9, atol=1e-9)


def test_no_network_knows_how_to_fold_itself() -> None:
    for name in names():
        for module in on_meta(name).modules():
            assert not any(hasattr(module, attribute) for attribute in ("reparameterize", "switch_to_deploy"))
            assert isinstance(module, nn.Module)
