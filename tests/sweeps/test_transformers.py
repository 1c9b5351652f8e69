"""Detectors and segmenters of Hugging Face's transformers, small, from configurations, folded as a whole.

They choose queries by top-k and mask attention by a threshold, so that rounding flips whole rows on some
probes. That is no evidence against a fold. Runs where transformers (and scipy, which Mask2Former asks for) is
installed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import nodes_of
from tests.torchvision_import import import_torchvision

pytestmark = pytest.mark.slow

STAGES = ("stage1", "stage2", "stage3", "stage4")


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The library. It imports torchvision where that is installed, which may lack its operators."""
    with suppress(ImportError):
        import_torchvision()
    return pytest.importorskip("transformers")


class Outputs(nn.Module):
    """The named outputs of a network of the library, as a tuple."""

    def __init__(self, inner: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.names = inner, names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self.inner(pixel_values=x)
        return tuple(outputs[name] for name in self.names)


def _resnet_of(config: Any, out: tuple[str, ...]) -> Any:
    return config(
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(out),
    )


def _rt_detr(hf: Any) -> nn.Module:
    config = hf.RTDetrConfig(
        backbone_config=_resnet_of(hf.RTDetrResNetConfig, STAGES[1:]),
        encoder_hidden_dim=32,
        encoder_in_channels=[32, 64, 128],
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        d_model=32,
        num_queries=30,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_labels=10,
    )
    return Outputs(hf.RTDetrForObjectDetection(config), ("logits", "pred_boxes"))


def _mask2former(hf: Any, backbone: Any) -> nn.Module:
    pytest.importorskip("scipy")
    config = hf.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=20,
        num_labels=10,
    )
    outputs = ("class_queries_logits", "masks_queries_logits")
    return Outputs(hf.Mask2FormerForUniversalSegmentation(config), outputs)


def _on_swin(hf: Any) -> nn.Module:
    backbone = hf.SwinConfig(
        image_size=128,
        embed_dim=24,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_features=list(STAGES),
    )
    return _mask2former(hf, backbone)


def _on_resnet(hf: Any) -> nn.Module:
    return _mask2former(hf, _resnet_of(hf.ResNetConfig, STAGES))


NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "RT-DETR": _rt_detr,
    "Mask2Former on Swin": _on_swin,
    "Mask2Former on ResNet": _on_resnet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_folds_as_a_whole(name: str, transformers: Any) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](transformers).eval()
    x = torch.randn(2, 3, 128, 128)
    rk.models.randomize(network, 0, sample=x)
    exact = copy.deepcopy(network).double()
    folded = rk.fold(network, x)
    verdict = folded.equivalence
    assert verdict is not None
    assert verdict.passed, str(verdict)
    judged = {output.probe for output in verdict.outputs if output.judged} - verdict.set_aside.keys()
    assert len(judged) >= 3, verdict.set_aside
    assert not any("batch_norm" in str(n.target) for n in nodes_of(folded.module)), "a batch norm stays"
    with torch.no_grad():
        for answer, expected in zip(folded.module(x), exact(x.double()), strict=True):
            assert (answer - expected).abs().max() <= 1e-4 * expected.abs().max()
