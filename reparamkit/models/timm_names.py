"""timm's parameter names, turned into those of the original repositories.

Each function takes a state dict with timm's names and returns a new one with ours; names that no rule
knows stay as they are, so a state dict that has our names already passes unchanged. The tensors are shared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str]]

_BYOBNET_STAGES: Rules = (
    (r"^stem\.", "stage0."),
    (r"^stages\.0\.", "stage1."),
    (r"^stages\.1\.", "stage2."),
    (r"^stages\.2\.", "stage3."),
    (r"^stages\.3\.", "stage4."),
    (r"^head\.fc\.", "linear."),
)

_MOBILEONE: Rules = (
    *_BYOBNET_STAGES,
    (r"\.conv_kxk\.", ".rbr_conv."),
    (r"\.conv_scale\.", ".rbr_scale."),
    (r"\.identity\.", ".rbr_skip."),
    (r"\.attn\.fc1\.", ".se.reduce."),
    (r"\.attn\.fc2\.", ".se.expand."),
)

_REPVGG: Rules = (
    *_BYOBNET_STAGES,
    (r"\.conv_kxk\.", ".rbr_dense."),
    (r"\.conv_1x1\.", ".rbr_1x1."),
    (r"\.identity\.", ".rbr_identity."),
    (r"\.attn\.fc1\.", ".se.down."),
    (r"\.attn\.fc2\.", ".se.up."),
)

_FASTVIT: Rules = (
    (r"^stem\.", "patch_embed."),
    (r"^final_conv\.", "conv_exp."),
    (r"^head\.fc\.", "head."),
    (r"^stages\.3\.pos_emb\.pos_enc\.", "network.6.pe."),
    (r"^stages\.1\.downsample\.", "network.1."),
    (r"^stages\.2\.downsample\.", "network.3."),
    (r"^stages\.3\.downsample\.", "network.5."),
    (r"^stages\.0\.blocks\.", "network.0."),
    (r"^stages\.1\.blocks\.", "network.2."),
    (r"^stages\.2\.blocks\.", "network.4."),
    (r"\.conv_kxk\.", ".rbr_conv."),
    (r"\.conv_scale\.", ".rbr_scale."),
    (r"\.identity\.", ".rbr_skip."),
    (r"\.large_conv\.", ".lkb_origin."),
    (r"\.mlp\.", ".convffn."),
    (r"\.se\.fc1\.", ".se.reduce."),
    (r"\.se\.fc2\.", ".se.expand."),
    (r"(\.layer_scale(_[12])?)\.gamma$", r"\1"),
)

_CONVNEXTV2: Rules = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc1\.", ".pwconv1."),
    (r"\.mlp\.fc2\.", ".pwconv2."),
    (r"\.mlp\.grn\.weight$", ".grn.gamma"),
    (r"\.mlp\.grn\.bias$", ".grn.beta"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def mobileone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `mobileone_*` of timm's byobnet."""
    return _rename(state, _MOBILEONE)


def repvgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `repvgg_*` of timm's byobnet."""
    return _rename(state, _REPVGG)


def fastvit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `fastvit_*` of timm, whose stages hold what the original lists flat in `network`."""
    has_encoding = any(".pos_emb." in key for key in state)
    stage_4 = (r"^stages\.3\.blocks\.", "network.7." if has_encoding else "network.6.")
    return _rename(state, (*_FASTVIT, stage_4))


def convnextv2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `convnextv2_*` of timm, whose GRN is 1-d and whose smaller perceptrons are 1x1 convolutions."""
    if not any(".conv_dw." in key for key in state):
        return dict(state)
    renamed = _rename(state, _CONVNEXTV2)
    for key, value in renamed.items():
        if ".pwconv" in key and value.ndim == 4:
            renamed[key] = value.flatten(1)
        elif ".grn." in key and value.ndim == 1:
            renamed[key] = value[None, None, None]
    return renamed


def unchanged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For families that timm does not have."""
    return dict(state)


def _rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
