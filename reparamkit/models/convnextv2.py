"""ConvNeXt V2 (Woo et al., CVPR 2023, arXiv:2301.00808).

    y = x + pwconv2(GRN(gelu(pwconv1(LayerNorm(dwconv7x7(x))))))

There is no branch and no batch norm in it: a network where structural re-parameterization finds nothing.
Parameter names are those of github.com/facebookresearch/ConvNeXt-V2, so its checkpoints load
with `strict=True`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reparamkit.models.stochastic_depth import DropPath, rates

EPSILON = 1e-6


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position: (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        normal = centred / torch.sqrt(variance + EPSILON)
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


class GRN(nn.Module):
    """Global response normalisation (section 4, equations 1 to 3), channels last: (N, H, W, C) -> same.

    Each channel is weighted by its L2 norm over `axes`, relative to the mean norm of the channels.
    """

    axes: tuple[int, ...] = (1, 2)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(x, dim=self.axes, keepdim=True)
        relative = norms / (norms.mean(-1, keepdim=True) + EPSILON)
        return self.gamma * (x * relative) + self.beta + x


class Block(nn.Module):
    """One residual block (figure 5 of the paper): (N, C, H, W) -> same."""

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.grn = GRN(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        inner = self.pwconv2(self.grn(self.act(self.pwconv1(inner))))
        branch: Tensor = self.drop_path(inner.permute(0, 3, 1, 2))
        return x + branch


@dataclass(frozen=True)
class ConvNeXtV2Config:
    """Blocks and channels of the four stages (appendix A.1 of the paper)."""

    blocks: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]


VARIANTS = {
    "convnextv2_atto": ConvNeXtV2Config((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_femto": ConvNeXtV2Config((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnextv2_pico": ConvNeXtV2Config((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnextv2_nano": ConvNeXtV2Config((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnextv2_tiny": ConvNeXtV2Config((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnextv2_base": ConvNeXtV2Config((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnextv2_large": ConvNeXtV2Config((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnextv2_huge": ConvNeXtV2Config((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


def downsampling(config: ConvNeXtV2Config) -> nn.ModuleList:
    """The stem, of stride 4, and the three layers of stride 2 between the stages."""
    first = config.channels[0]
    layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, first, 4, 4), ChannelNorm(first))])
    for inputs, outputs in zip(config.channels[:-1], config.channels[1:], strict=True):
        layers.append(nn.Sequential(ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, 2)))
    return layers


class ConvNeXtV2(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes). The total stride is 32.

    `drop_path_rate` is the last block's rate of stochastic depth; `head_init_scale` scales the
    classifier's initial weights.
    """

    def __init__(
        self,
        config: ConvNeXtV2Config,
        num_classes: int = 1000,
        *,
        drop_path_rate: float = 0.0,
        head_init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        drop_paths = iter(rates(drop_path_rate, sum(config.blocks)))
        self.downsample_layers = downsampling(config)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(channels, next(drop_paths)) for _ in range(blocks)))
            for blocks, channels in zip(config.blocks, config.channels, strict=True)
        )
        self.norm = nn.LayerNorm(config.channels[-1], eps=EPSILON)
        self.head = nn.Linear(config.channels[-1], num_classes)
        initialise(self)
        with torch.no_grad():
            self.head.weight.mul_(head_init_scale)
            self.head.bias.mul_(head_init_scale)

    def forward_features(self, x: Tensor) -> Tensor:
        """What the classifier reads: images (N, 3, H, W) -> (N, channels[-1])."""
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        pooled: Tensor = self.norm(x.mean((-2, -1)))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits


def initialise(model: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and zero biases in every convolution and linear layer."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(
    name: str, *, num_classes: int = 1000, drop_path_rate: float = 0.0, head_init_scale: float = 1.0
) -> ConvNeXtV2:
    """The variant `name` (a key of `VARIANTS`) with its published initialisation.

    Raises KeyError for a name that is not in `VARIANTS`.
    """
    return ConvNeXtV2(
        VARIANTS[name], num_classes, drop_path_rate=drop_path_rate, head_init_scale=head_init_scale
    )
