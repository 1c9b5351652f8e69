"""RepVGG in its training-time form (Ding et al., CVPR 2021, arXiv:2101.03697).

    y = relu(se(conv3x3-BN(x) + conv1x1-BN(x) + BN(x)))

where the last term exists only in blocks that keep channels and size. Parameter names are those of
github.com/DingXiaoH/RepVGG, so its checkpoints of the unfused networks load with `strict=True`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

BASE_WIDTHS = (64, 128, 256, 512)


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018, arXiv:1709.01507) of hidden width C//16: (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 16, 1)
        self.up = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        out: Tensor = x * gate.sigmoid()
        return out


class ConvNorm(nn.Sequential):
    """A bias-free convolution `conv` that keeps the size at stride 1, and a batch norm `bn`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))


class RepVGGBlock(nn.Module):
    """3x3, 1x1 and identity branches, summed (figure 4 of the paper).

    (N, inputs, H, W) -> (N, outputs, H', W') with H' = (H − 1) // stride + 1.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, *, squeeze_excite: bool = False
    ) -> None:
        super().__init__()
        self.nonlinearity = nn.ReLU()
        self.se = SqueezeExcite(outputs) if squeeze_excite else nn.Identity()
        self.rbr_identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_dense = ConvNorm(inputs, outputs, 3, stride, groups)
        self.rbr_1x1 = ConvNorm(inputs, outputs, 1, stride, groups)

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        total = self.rbr_dense(x) + self.rbr_1x1(x) + identity
        out: Tensor = self.nonlinearity(self.se(total))
        return out


@dataclass(frozen=True)
class RepVGGConfig:
    """One row of tables 2 and 3 of the paper.

    `widths` multiply `BASE_WIDTHS`; `groups` applies to every second block (section 3.4).
    """

    blocks: tuple[int, int, int, int]
    widths: tuple[float, float, float, float]
    groups: int = 1
    squeeze_excite: bool = False


_A = (2, 4, 14, 1)
_B = (4, 6, 16, 1)

VARIANTS = {
    "repvgg_a0": RepVGGConfig(_A, (0.75, 0.75, 0.75, 2.5)),
    "repvgg_a1": RepVGGConfig(_A, (1, 1, 1, 2.5)),
    "repvgg_a2": RepVGGConfig(_A, (1.5, 1.5, 1.5, 2.75)),
    "repvgg_b0": RepVGGConfig(_B, (1, 1, 1, 2.5)),
    "repvgg_b1": RepVGGConfig(_B, (2, 2, 2, 4)),
    "repvgg_b1g2": RepVGGConfig(_B, (2, 2, 2, 4), groups=2),
    "repvgg_b1g4": RepVGGConfig(_B, (2, 2, 2, 4), groups=4),
    "repvgg_b2": RepVGGConfig(_B, (2.5, 2.5, 2.5, 5)),
    "repvgg_b2g2": RepVGGConfig(_B, (2.5, 2.5, 2.5, 5), groups=2),
    "repvgg_b2g4": RepVGGConfig(_B, (2.5, 2.5, 2.5, 5), groups=4),
    "repvgg_b3": RepVGGConfig(_B, (3, 3, 3, 5)),
    "repvgg_b3g2": RepVGGConfig(_B, (3, 3, 3, 5), groups=2),
    "repvgg_b3g4": RepVGGConfig(_B, (3, 3, 3, 5), groups=4),
    "repvgg_d2se": RepVGGConfig((8, 14, 24, 1), (2.5, 2.5, 2.5, 5), squeeze_excite=True),
}
TOYS = {"repvgg_toy": RepVGGConfig((1, 2, 2, 1), (0.25, 0.25, 0.25, 0.25))}
"""Not published: small enough to be trained on a processor in a minute."""


class RepVGG(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes). The total stride is 32."""

    def __init__(self, config: RepVGGConfig, num_classes: int = 1000) -> None:
        super().__init__()
        widths = [int(base * factor) for base, factor in zip(BASE_WIDTHS, config.widths, strict=True)]
        stem = min(64, widths[0])
        self.stage0 = RepVGGBlock(3, stem, stride=2, squeeze_excite=config.squeeze_excite)
        inputs, first = stem, 1
        stages: list[nn.ModuleList] = []
        for outputs, blocks in zip(widths, config.blocks, strict=True):
            stages.append(_stage(inputs, outputs, blocks, first, config))
            inputs, first = outputs, first + blocks
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage0(x)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            for block in stage:
                x = block(x)
        logits: Tensor = self.linear(self.gap(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, first: int, config: RepVGGConfig) -> nn.ModuleList:
    """Blocks `first`, `first + 1`, … of the network (the stem is 0); even ones up to 26 are grouped."""
    stage = nn.ModuleList()
    for index in range(blocks):
        position = first + index
        groups = config.groups if position % 2 == 0 and position <= 26 else 1
        stage.append(
            RepVGGBlock(
                inputs if index == 0 else outputs,
                outputs,
                stride=2 if index == 0 else 1,
                groups=groups,
                squeeze_excite=config.squeeze_excite,
            )
        )
    return stage


def build(name: str, *, num_classes: int = 1000) -> RepVGG:
    """The variant `name` (a key of `VARIANTS` or `TOYS`) with PyTorch's default initialisation, as published.

    Raises KeyError for a name that is in neither.
    """
    return RepVGG((VARIANTS | TOYS)[name], num_classes)
