"""transformers' networks for images, detection, sound and text, small, with random weights, folded.

The library has no fold of its own: nothing may become more frequent. Every network is built from a
configuration of its class; what it returns first is compared, or what `outputs` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.sweeps.networks import VOCABULARY, Job, Network, filled
from tests.torchvision_import import import_torchvision

LIBRARY = "transformers"
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_IMAGE = {"pixel_values": (2, 3, 64, 64)}
_LARGER = {"pixel_values": (2, 3, 128, 96)}
_VIDEO = {"pixel_values": (2, 4, 3, 32, 32)}
_TOKENS = {"input_ids": (2, 9)}
_WAVE = {"input_values": (2, 2000)}
_WORDS = 2 * VOCABULARY


@dataclass(frozen=True)
class Recipe:
    """How a network is made and called; `sizes` is its configuration, or makes it out of the library."""

    group: str
    model: str
    sizes: dict[str, Any] | Callable[[Any], Any]
    inputs: Mapping[str, tuple[int, ...]]
    config: str = ""
    outputs: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    """Arguments of the call that are no tensors."""


def jobs() -> list[Job]:
    """All of them."""
    return [Job(LIBRARY, recipe.group, name) for name, recipe in NETWORKS.items()]


def build(name: str) -> Network:
    """The network with random weights and statistics."""
    with suppress(ImportError):
        import_torchvision()  # transformers imports it where it is installed, and it may lack its operators
    import transformers as hf

    recipe = NETWORKS[name]
    torch.manual_seed(0)
    sizes = recipe.sizes
    config = sizes(hf) if callable(sizes) else _config(hf, recipe)(**sizes)
    model = Called(getattr(hf, recipe.model)(config), recipe).eval()
    args = tuple(_empty(name, shape) for name, shape in recipe.inputs.items())
    _fill_frozen_norms(model)
    return filled(model, args, ", ".join("x".join(map(str, shape)) for shape in recipe.inputs.values()))


class Called(nn.Module):
    """A network of the library called by the names of its inputs, its outputs as a tuple of tensors."""

    def __init__(self, inner: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.inner, self.names = inner, tuple(recipe.inputs)
        self.outputs, self.more = recipe.outputs, dict(recipe.more)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.inner(**dict(zip(self.names, inputs, strict=True)), **self.more)
        if isinstance(result, Tensor):
            return (result,)
        if self.outputs:
            return tuple(result[name] for name in self.outputs)
        first = result[0]
        return tuple(first) if isinstance(first, tuple | list) else (first,)


def _config(hf: Any, recipe: Recipe) -> Any:
    if recipe.config:
        return getattr(hf, recipe.config)
    for ending in ("Model", "Backbone", "Encoder", "For", ""):
        name = (
            re.split("For(?=[A-Z])", recipe.model)[0]
            if ending == "For"
            else recipe.model.removesuffix(ending)
        )
        if hasattr(hf, f"{name}Config"):
            return getattr(hf, f"{name}Config")
    raise ValueError(f"no configuration for {recipe.model}")


def _empty(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("mask") or name.startswith("is_"):
        return torch.ones(shape, dtype=torch.bool)
    return torch.zeros(shape, dtype=torch.int64 if name.endswith("ids") else torch.float32)


def _fill_frozen_norms(model: nn.Module) -> None:
    """Batch norms whose statistics and weights are buffers."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if "FrozenBatchNorm" in type(module).__name__:
            for name, buffer in module.named_buffers(recurse=False):
                low, high = (-0.5, 0.5) if name in ("bias", "running_mean") else (0.5, 1.5)
                buffer.uniform_(low, high, generator=generator)


def _vit(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {"image_size": 64, "patch_size": 16, **sizes, **more}


def _text(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {"vocab_size": _WORDS, "max_position_embeddings": 32, **sizes, **more}


def _decoder(**more: Any) -> dict[str, Any]:
    return _text(
        num_key_value_heads=2, use_cache=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more
    )


def _wav2vec(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_dim": (16, 16, 16),
        "conv_stride": (5, 4, 2),
        "conv_kernel": (10, 8, 4),
        "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "vocab_size": _WORDS,
        **more,
    }


def _resnet(name: str, out: list[str]) -> Callable[[Any], Any]:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}
    return lambda hf: getattr(hf, name)(**sizes, layer_type="basic", out_features=out)


def _detr(config: str, **more: Any) -> Callable[[Any], Any]:
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "num_queries": 10,
        "num_labels": 6,
    }
    return lambda hf: getattr(hf, config)(
        backbone_config=_resnet("ResNetConfig", _STAGES if "num_feature_levels" in more else ["stage4"])(hf),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        **sizes,
        **more,
    )


def _real_time(config: str, backbone: str, **more: Any) -> Callable[[Any], Any]:
    def make(hf: Any) -> Any:
        sizes = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "out_features": _STAGES[1:]}
        if backbone == "HGNetV2Config":
            sizes |= {
                "stem_channels": [3, 16, 16],
                "stage_in_channels": [16, 16, 32, 64],
                "stage_mid_channels": [16, 16, 32, 32],
                "stage_out_channels": [16, 32, 64, 128],
                "stage_num_blocks": [1, 1, 1, 1],
                "stage_numb_of_layers": [2, 2, 2, 2],
                "embedding_size": 16,
            }
        else:
            sizes |= {"embedding_size": 16, "layer_type": "basic"}
        return getattr(hf, config)(
            backbone_config=getattr(hf, backbone)(**sizes),
            encoder_hidden_dim=32,
            encoder_in_channels=[32, 64, 128],
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            d_model=32,
            num_queries=10,
            decoder_in_channels=[32, 32, 32],
            decoder_ffn_dim=64,
            decoder_layers=2,
            decoder_attention_heads=4,
            num_labels=6,
            **more,
        )

    return make


def _segmenter(config: str, **more: Any) -> Callable[[Any], Any]:
    return lambda hf: getattr(hf, config)(backbone_config=_resnet("ResNetConfig", _STAGES)(hf), **more)


_SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
_MASKED = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 64,
    "dim_feedforward": 64,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 4,
    "num_queries": 10,
    "num_labels": 6,
}
_FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64]}
_BOXES = ("logits", "pred_boxes")

NETWORKS: dict[str, Recipe] = {
    # images
    "ResNet": Recipe("image", "ResNetForImageClassification", {**_FOUR, "embedding_size": 16}, _IMAGE),
    "ResNet, basic": Recipe("image", "ResNetModel", _resnet("ResNetConfig", _STAGES), _IMAGE),
    "RegNet": Recipe(
        "image", "RegNetForImageClassification", {**_FOUR, "embedding_size": 16, "groups_width": 8}, _IMAGE
    ),
    "RegNet, x": Recipe(
        "image", "RegNetModel", {**_FOUR, "embedding_size": 16, "groups_width": 8, "layer_type": "x"}, _IMAGE
    ),
    "BiT": Recipe(
        "image", "BitForImageClassification", {**_FOUR, "embedding_size": 16, "num_groups": 4}, _IMAGE
    ),
    "ConvNeXt": Recipe("image", "ConvNextForImageClassification", _FOUR, _IMAGE),
    "ConvNeXt V2": Recipe("image", "ConvNextV2ForImageClassification", _FOUR, _IMAGE),
    "DINOv3 ConvNeXt": Recipe("image", "DINOv3ConvNextModel", _FOUR, _IMAGE),
    "Swin": Recipe("image", "SwinForImageClassification", _SWIN, _IMAGE),
    "Swin V2": Recipe("image", "Swinv2ForImageClassification", _SWIN, _IMAGE),
    "Swin2SR": Recipe(
        "image",
        "Swin2SRForImageSuperResolution",
        {"image_size": 16, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4},
        {"pixel_values": (2, 3, 16, 16)},
    ),
    "ViT": Recipe("image", "ViTForImageClassification", _vit(), _IMAGE),
    "DeiT": Recipe("image", "DeiTForImageClassificationWithTeacher", _vit(), _IMAGE, "DeiTConfig"),
    "BEiT": Recipe("image", "BeitForImageClassification", _vit(use_relative_position_bias=True), _IMAGE),
    "Data2Vec Vision": Recipe(
        "image", "Data2VecVisionForImageClassification", _vit(use_shared_relative_position_bias=True), _IMAGE
    ),
    "DINOv2": Recipe("image", "Dinov2ForImageClassification", _vit(), _IMAGE),
    "DINOv2 with registers": Recipe("image", "Dinov2WithRegistersModel", _vit(), _IMAGE),
    "DINOv2, SwiGLU": Recipe("image", "Dinov2Model", _vit(use_swiglu_ffn=True), _IMAGE),
    "DINOv3 ViT": Recipe("image", "DINOv3ViTModel", _vit(), _IMAGE),
    "I-JEPA": Recipe("image", "IJepaModel", _vit(), _IMAGE),
    "ViT MSN": Recipe("image", "ViTMSNModel", _vit(), _IMAGE),
    "CLIP vision": Recipe("image", "CLIPVisionModel", _vit(), _IMAGE),
    "SigLIP vision": Recipe("image", "SiglipVisionModel", _vit(), _IMAGE),
    "AIMv2 vision": Recipe("image", "Aimv2VisionModel", _vit(), _IMAGE),
    "InternVL vision": Recipe(
        "image", "InternVLVisionModel", _vit(image_size=[64, 64], patch_size=[16, 16]), _IMAGE
    ),
    "ViTDet": Recipe(
        "image",
        "VitDetModel",
        _vit(window_size=2, window_block_indices=[0], use_relative_position_embeddings=True),
        _IMAGE,
    ),
    "Hiera": Recipe(
        "image",
        "HieraForImageClassification",
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 4]},
        _IMAGE,
    ),
    "LeViT": Recipe(
        "image",
        "LevitForImageClassificationWithTeacher",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [2, 4, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        _IMAGE,
        "LevitConfig",
    ),
    "MobileNet V1": Recipe("image", "MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}, _IMAGE),
    "MobileNet V2": Recipe("image", "MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}, _IMAGE),
    "MobileNet V2, segmentation": Recipe(
        "image", "MobileNetV2ForSemanticSegmentation", {"depth_multiplier": 0.25, "num_labels": 6}, _IMAGE
    ),
    "MobileViT": Recipe(
        "image",
        "MobileViTForImageClassification",
        {"hidden_sizes": [32, 32, 48], "neck_hidden_sizes": [8, 16, 24, 32, 48, 48, 64], "image_size": 64},
        _IMAGE,
    ),
    "MobileViT V2": Recipe("image", "MobileViTV2ForImageClassification", {"width_multiplier": 0.25}, _IMAGE),
    "EfficientNet": Recipe(
        "image",
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
        _IMAGE,
    ),
    "PoolFormer": Recipe("image", "PoolFormerForImageClassification", _FOUR, _IMAGE),
    "PVT": Recipe(
        "image",
        "PvtForImageClassification",
        {**_FOUR, "image_size": 64, "num_attention_heads": [1, 2, 3, 4]},
        _IMAGE,
    ),
    "PVT V2": Recipe(
        "image", "PvtV2ForImageClassification", {**_FOUR, "num_attention_heads": [1, 2, 3, 4]}, _IMAGE
    ),
    "CvT": Recipe(
        "image",
        "CvtForImageClassification",
        {
            "embed_dim": [16, 32, 48],
            "num_heads": [1, 2, 3],
            "depth": [1, 2, 3],
            "cls_token": [False, False, True],
        },
        _IMAGE,
    ),
    "FocalNet": Recipe(
        "image",
        "FocalNetForImageClassification",
        {"image_size": 64, "embed_dim": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
        _IMAGE,
    ),
    "FocalNet, layer scale": Recipe(
        "image",
        "FocalNetModel",
        {
            "image_size": 64,
            "embed_dim": 16,
            "hidden_sizes": [16, 32],
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
            "use_layerscale": True,
            "use_conv_embed": True,
        },
        _IMAGE,
    ),
    "SwiftFormer": Recipe(
        "image",
        "SwiftFormerForImageClassification",
        {"depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 48]},
        _IMAGE,
    ),
    "HGNetV2": Recipe("image", "HGNetV2ForImageClassification", {}, _IMAGE),
    "TextNet": Recipe("image", "TextNetForImageClassification", {}, _IMAGE),
    "PP-LCNet": Recipe("image", "PPLCNetForImageClassification", {"scale": 0.25}, _IMAGE),
    "VideoMAE": Recipe("image", "VideoMAEModel", _vit(image_size=32, num_frames=4), _VIDEO),
    "TimeSformer": Recipe("image", "TimesformerModel", _vit(image_size=32, num_frames=4), _VIDEO),
    "ViViT": Recipe(
        "image", "VivitModel", _vit(image_size=32, num_frames=4, tubelet_size=[2, 16, 16]), _VIDEO
    ),
    # every pixel
    "SegFormer": Recipe(
        "dense",
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 32,
            "num_labels": 6,
        },
        _LARGER,
    ),
    "UperNet on ConvNeXt": Recipe(
        "dense",
        "UperNetForSemanticSegmentation",
        lambda hf: hf.UperNetConfig(
            backbone_config=hf.ConvNextConfig(**_FOUR, out_features=_STAGES), hidden_size=32, num_labels=6
        ),
        _LARGER,
    ),
    "UperNet on Swin": Recipe(
        "dense",
        "UperNetForSemanticSegmentation",
        lambda hf: hf.UperNetConfig(
            backbone_config=hf.SwinConfig(
                embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, out_features=_STAGES
            ),
            hidden_size=32,
            num_labels=6,
        ),
        _LARGER,
    ),
    "DPT": Recipe(
        "dense",
        "DPTForDepthEstimation",
        _vit(
            num_hidden_layers=4,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 24, 32, 48],
            fusion_hidden_size=32,
        ),
        _IMAGE,
    ),
    "DPT, segmentation": Recipe(
        "dense",
        "DPTForSemanticSegmentation",
        _vit(
            num_hidden_layers=4,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 24, 32, 48],
            fusion_hidden_size=32,
            use_batch_norm_in_fusion_residual=True,
            num_labels=6,
        ),
        _IMAGE,
    ),
    "Depth Anything": Recipe(
        "dense",
        "DepthAnythingForDepthEstimation",
        lambda hf: hf.DepthAnythingConfig(
            backbone_config=hf.Dinov2Config(
                **_vit(num_hidden_layers=4, image_size=56, patch_size=14),
                out_features=_STAGES,
                reshape_hidden_states=False,
            ),
            reassemble_hidden_size=32,
            patch_size=14,
            neck_hidden_sizes=[16, 24, 32, 48],
            fusion_hidden_size=32,
        ),
        {"pixel_values": (2, 3, 56, 56)},
    ),
    "GLPN": Recipe(
        "dense",
        "GLPNForDepthEstimation",
        {
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 16,
        },
        _IMAGE,
    ),
    "SAM vision": Recipe(
        "dense", "SamVisionModel", _vit(output_channels=16, window_size=2, global_attn_indexes=[1]), _IMAGE
    ),
    "SuperPoint": Recipe(
        "dense",
        "SuperPointForKeypointDetection",
        {"encoder_hidden_sizes": [16, 16, 32, 32], "decoder_hidden_size": 32, "descriptor_decoder_dim": 32},
        {"pixel_values": (1, 3, 64, 64)},
        outputs=("scores", "descriptors"),
    ),
    "ViTMatte": Recipe(
        "dense",
        "VitMatteForImageMatting",
        lambda hf: hf.VitMatteConfig(
            backbone_config=hf.VitDetConfig(**_vit(), num_channels=4, out_features=["stage2"]),
            hidden_size=32,
            convstream_hidden_sizes=[8, 16, 24],
            fusion_hidden_sizes=[32, 24, 16, 8],
        ),
        {"pixel_values": (2, 4, 64, 64)},
        outputs=("alphas",),
    ),
    "ViTPose": Recipe(
        "dense",
        "VitPoseForPoseEstimation",
        lambda hf: hf.VitPoseConfig(
            backbone_config=hf.VitPoseBackboneConfig(
                image_size=[64, 48],
                patch_size=[16, 16],
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                out_indices=[2],
            ),
            use_simple_decoder=False,
        ),
        {"pixel_values": (2, 3, 64, 48)},
        outputs=("heatmaps",),
    ),
    "EoMT": Recipe(
        "dense",
        "EomtForUniversalSegmentation",
        _vit(num_blocks=1, num_queries=8, num_upscale_blocks=1, num_labels=6),
        _IMAGE,
        outputs=("masks_queries_logits", "class_queries_logits"),
    ),
    # detection
    "DETR": Recipe("detection", "DetrForObjectDetection", _detr("DetrConfig"), _LARGER, outputs=_BOXES),
    "Table Transformer": Recipe(
        "detection",
        "TableTransformerForObjectDetection",
        _detr("TableTransformerConfig"),
        _LARGER,
        outputs=_BOXES,
    ),
    "Conditional DETR": Recipe(
        "detection",
        "ConditionalDetrForObjectDetection",
        _detr("ConditionalDetrConfig"),
        _LARGER,
        outputs=_BOXES,
    ),
    "Deformable DETR": Recipe(
        "detection",
        "DeformableDetrForObjectDetection",
        _detr("DeformableDetrConfig", num_feature_levels=4),
        _LARGER,
        outputs=_BOXES,
    ),
    "RT-DETR": Recipe(
        "detection",
        "RTDetrForObjectDetection",
        _real_time("RTDetrConfig", "RTDetrResNetConfig"),
        _LARGER,
        outputs=_BOXES,
    ),
    "RT-DETR V2": Recipe(
        "detection",
        "RTDetrV2ForObjectDetection",
        _real_time("RTDetrV2Config", "RTDetrResNetConfig"),
        _LARGER,
        outputs=_BOXES,
    ),
    "D-FINE": Recipe(
        "detection",
        "DFineForObjectDetection",
        _real_time("DFineConfig", "HGNetV2Config", decoder_n_points=[2, 2, 2]),
        _LARGER,
        outputs=_BOXES,
    ),
    "YOLOS": Recipe(
        "detection",
        "YolosForObjectDetection",
        _vit(num_detection_tokens=8, image_size=[64, 64]),
        _IMAGE,
        outputs=_BOXES,
    ),
    "MaskFormer": Recipe(
        "detection",
        "MaskFormerForInstanceSegmentation",
        lambda hf: hf.MaskFormerConfig(
            fpn_feature_size=32,
            mask_feature_size=32,
            backbone_config=hf.SwinConfig(
                embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, out_features=_STAGES
            ),
            decoder_config=_detr("DetrConfig")(hf),
            num_labels=6,
        ),
        _LARGER,
        outputs=("class_queries_logits", "masks_queries_logits"),
    ),
    "Mask2Former": Recipe(
        "detection",
        "Mask2FormerForUniversalSegmentation",
        _segmenter("Mask2FormerConfig", **_MASKED),
        _LARGER,
        outputs=("class_queries_logits", "masks_queries_logits"),
    ),
    "PP-OCR detection": Recipe("detection", "PPOCRV5MobileDetForObjectDetection", {}, _IMAGE),
    # sound
    "Wav2Vec2": Recipe("sound", "Wav2Vec2ForCTC", _wav2vec(), _WAVE),
    "Wav2Vec2, stable": Recipe(
        "sound", "Wav2Vec2Model", _wav2vec(do_stable_layer_norm=True, feat_extract_norm="layer"), _WAVE
    ),
    "Wav2Vec2 Conformer": Recipe("sound", "Wav2Vec2ConformerModel", _wav2vec(), _WAVE),
    "Wav2Vec2-BERT": Recipe(
        "sound",
        "Wav2Vec2BertModel",
        {**_wav2vec(), "feature_projection_input_dim": 16},
        {"input_features": (2, 30, 16)},
    ),
    "HuBERT": Recipe("sound", "HubertModel", _wav2vec(), _WAVE),
    "HuBERT, batch norm": Recipe("sound", "HubertModel", _wav2vec(conv_pos_batch_norm=True), _WAVE),
    "WavLM": Recipe("sound", "WavLMModel", _wav2vec(), _WAVE),
    "UniSpeech": Recipe("sound", "UniSpeechModel", _wav2vec(), _WAVE),
    "SEW": Recipe("sound", "SEWModel", _wav2vec(squeeze_factor=2), _WAVE),
    "AST": Recipe(
        "sound",
        "ASTForAudioClassification",
        {**_vit(), "max_length": 64, "num_mel_bins": 32},
        {"input_values": (2, 64, 32)},
    ),
    "Whisper": Recipe(
        "sound",
        "WhisperModel",
        {
            "vocab_size": _WORDS,
            "num_mel_bins": 16,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_source_positions": 20,
            "max_target_positions": 20,
            "use_cache": False,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        {"input_features": (2, 16, 40), "decoder_input_ids": (2, 5)},
    ),
    "Moonshine": Recipe(
        "sound",
        "MoonshineModel",
        {
            "vocab_size": _WORDS,
            "hidden_size": 32,
            "intermediate_size": 64,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "use_cache": False,
        },
        {"input_values": (2, 2000), "decoder_input_ids": (2, 5)},
    ),
    "EnCodec": Recipe(
        "sound",
        "EncodecModel",
        {
            "num_filters": 8,
            "hidden_size": 32,
            "codebook_size": 16,
            "codebook_dim": 32,
            "upsampling_ratios": [4, 2],
        },
        {"input_values": (2, 1, 400)},
        outputs=("audio_values",),
    ),
    "DAC": Recipe(
        "sound",
        "DacModel",
        {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 4],
            "upsampling_ratios": [4, 2],
            "decoder_hidden_size": 32,
            "n_codebooks": 2,
            "codebook_size": 16,
            "codebook_dim": 4,
        },
        {"input_values": (2, 1, 400)},
        outputs=("audio_values",),
    ),
    "HiFi-GAN": Recipe(
        "sound",
        "SpeechT5HifiGan",
        {
            "model_in_dim": 16,
            "upsample_initial_channel": 32,
            "upsample_rates": [4, 2],
            "upsample_kernel_sizes": [8, 4],
        },
        {"spectrogram": (2, 12, 16)},
        "SpeechT5HifiGanConfig",
    ),
    "UnivNet": Recipe(
        "sound",
        "UnivNetModel",
        {
            "model_hidden_channels": 8,
            "model_in_channels": 16,
            "num_mel_bins": 16,
            "kernel_predictor_hidden_channels": 16,
        },
        {"input_features": (2, 12, 16), "noise_sequence": (2, 12, 16)},
    ),
    "CLAP audio": Recipe(
        "sound",
        "ClapAudioModel",
        {
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "hidden_size": 32,
            "window_size": 4,
            "patch_size": 4,
            "patch_stride": [4, 4],
        },
        {"input_features": (2, 1, 200, 16), "is_longer": (2, 1)},
    ),
    # text
    "BERT": Recipe("text", "BertForSequenceClassification", _text(), _TOKENS),
    "BERT, masked words": Recipe("text", "BertForMaskedLM", _text(), _TOKENS),
    "RoBERTa": Recipe("text", "RobertaModel", _text(), _TOKENS),
    "ALBERT": Recipe("text", "AlbertModel", _text(embedding_size=16), _TOKENS),
    "DistilBERT": Recipe(
        "text",
        "DistilBertModel",
        {"vocab_size": _WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        _TOKENS,
    ),
    "ELECTRA": Recipe("text", "ElectraModel", _text(embedding_size=16), _TOKENS),
    "MobileBERT": Recipe(
        "text",
        "MobileBertModel",
        _text(embedding_size=32, intra_bottleneck_size=16, true_hidden_size=16, num_feedforward_networks=2),
        _TOKENS,
    ),
    "SqueezeBERT": Recipe("text", "SqueezeBertModel", _text(embedding_size=32), _TOKENS),
    "ConvBERT": Recipe("text", "ConvBertModel", _text(embedding_size=32, conv_kernel_size=3), _TOKENS),
    "FNet": Recipe("text", "FNetModel", _text(), _TOKENS),
    "DeBERTa V2": Recipe("text", "DebertaV2Model", _text(relative_attention=True), _TOKENS),
    "ModernBERT": Recipe("text", "ModernBertModel", _text(pad_token_id=0), _TOKENS),
    "XLNet": Recipe(
        "text",
        "XLNetModel",
        {"vocab_size": _WORDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        _TOKENS,
    ),
    "GPT-2": Recipe(
        "text",
        "GPT2LMHeadModel",
        {
            "vocab_size": _WORDS,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 32,
            "use_cache": False,
        },
        _TOKENS,
        "GPT2Config",
    ),
    "GPT-Neo": Recipe(
        "text",
        "GPTNeoModel",
        _text(num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], use_cache=False),
        _TOKENS,
    ),
    "GPT-NeoX": Recipe("text", "GPTNeoXModel", _text(use_cache=False), _TOKENS),
    "OPT": Recipe(
        "text",
        "OPTForCausalLM",
        _text(ffn_dim=64, word_embed_proj_dim=16, use_cache=False),
        _TOKENS,
        "OPTConfig",
    ),
    "BLOOM": Recipe(
        "text",
        "BloomModel",
        {"vocab_size": _WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
        _TOKENS,
    ),
    "Falcon": Recipe("text", "FalconModel", _text(use_cache=False), _TOKENS),
    "Phi": Recipe("text", "PhiModel", _decoder(), _TOKENS),
    "Llama": Recipe("text", "LlamaForCausalLM", _decoder(), _TOKENS),
    "Mistral": Recipe("text", "MistralModel", _decoder(), _TOKENS),
    "Mixtral": Recipe("text", "MixtralModel", _decoder(num_local_experts=4), _TOKENS),
    "Qwen2": Recipe("text", "Qwen2Model", _decoder(), _TOKENS),
    "Qwen3": Recipe("text", "Qwen3Model", _decoder(head_dim=8), _TOKENS),
    "Gemma 2": Recipe("text", "Gemma2Model", _decoder(head_dim=8), _TOKENS),
    "Gemma 3": Recipe("text", "Gemma3TextModel", _decoder(head_dim=8), _TOKENS),
    "OLMo 2": Recipe("text", "Olmo2Model", _decoder(), _TOKENS),
    "StableLM": Recipe("text", "StableLmModel", _decoder(), _TOKENS),
    "Cohere": Recipe("text", "CohereModel", _decoder(logit_scale=0.1), _TOKENS),
    "Granite": Recipe(
        "text",
        "GraniteForCausalLM",
        _decoder(
            embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0, attention_multiplier=0.2
        ),
        _TOKENS,
    ),
    "T5": Recipe(
        "text",
        "T5EncoderModel",
        {"vocab_size": _WORDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        _TOKENS,
        "T5Config",
    ),
    "BART": Recipe(
        "text",
        "BartModel",
        {
            "vocab_size": _WORDS,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 32,
            "use_cache": False,
        },
        {"input_ids": (2, 9), "decoder_input_ids": (2, 5)},
    ),
    "Mamba": Recipe(
        "text",
        "MambaModel",
        {"vocab_size": _WORDS, "hidden_size": 32, "num_hidden_layers": 2, "use_cache": False},
        _TOKENS,
    ),
    "RWKV": Recipe(
        "text",
        "RwkvModel",
        {
            "vocab_size": _WORDS,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "use_cache": False,
        },
        _TOKENS,
    ),
}
