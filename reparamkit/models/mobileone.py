"""MobileOne in its training-time form (Vasu et al., CVPR 2023, arXiv:2206.04040).

A block sums affine branches that read the same feature map and applies one non-linearity:

    y = relu(se(scale(x) + skip(x) + conv_1(x) + … + conv_k(x)))

`scale` is a pointwise convolution and a batch norm, `skip` a batch norm, each `conv_i` a convolution
and a batch norm. Depthwise and pointwise blocks alternate. Parameter names are those of
github.com/apple/ml-mobileone, so its checkpoints of the unfused networks load with `strict=True`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS_PER_STAGE = (2, 8, 10, 1)
BASE_WIDTHS = (64, 128, 256, 512)


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018, arXiv:1709.01507): (N, C, H, W) -> (N, C, H, W).

    The hidden width is C/16, rounded down.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, int(channels / 16), 1)
        self.expand = nn.Conv2d(int(channels / 16), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        out: Tensor = x * gate.sigmoid()
        return out


class ConvNorm(nn.Sequential):
    """A bias-free convolution `conv` and a batch norm `bn`: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int
    ) -> None:
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))


class MobileOneBlock(nn.Module):
    """The sum of parallel branches, then squeeze-excite and activation (section 3.3 of the paper).

    (N, inputs, H, W) -> (N, outputs, H', W') with H' = (H + 2·padding − kernel) // stride + 1.

    The skip branch exists where the block keeps channels and size, the pointwise scale branch where
    the kernel is larger than 1 and `scale_branch` is set.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        conv_branches: int = 1,
        scale_branch: bool = True,
        squeeze_excite: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.se = SqueezeExcite(outputs) if squeeze_excite else nn.Identity()
        self.activation = activation()
        self.rbr_skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_conv = nn.ModuleList(
            ConvNorm(inputs, outputs, kernel, stride, padding, groups) for _ in range(conv_branches)
        )
        has_scale = scale_branch and kernel > 1
        self.rbr_scale = ConvNorm(inputs, outputs, 1, stride, 0, groups) if has_scale else None

    def forward(self, x: Tensor) -> Tensor:
        skip = 0 if self.rbr_skip is None else self.rbr_skip(x)
        scale = 0 if self.rbr_scale is None else self.rbr_scale(x)
        terms = [scale, skip, *(branch(x) for branch in self.rbr_conv)]
        # As in the release a missing branch is the number 0; adding it last changes no bit of the sum.
        total = reduce(operator.add, sorted(terms, key=lambda term: not isinstance(term, Tensor)))
        out: Tensor = self.activation(self.se(total))
        return out


@dataclass(frozen=True)
class MobileOneConfig:
    """One row of table 2 of the paper; `widths` multiply `BASE_WIDTHS`, `blocks` are pairs in each stage."""

    widths: tuple[float, float, float, float]
    conv_branches: int = 1
    squeeze_excite: bool = False
    blocks: tuple[int, int, int, int] = BLOCKS_PER_STAGE


VARIANTS = {
    "mobileone_s0": MobileOneConfig((0.75, 1.0, 1.0, 2.0), conv_branches=4),
    "mobileone_s1": MobileOneConfig((1.5, 1.5, 2.0, 2.5)),
    "mobileone_s2": MobileOneConfig((1.5, 2.0, 2.5, 4.0)),
    "mobileone_s3": MobileOneConfig((2.0, 2.5, 3.0, 4.0)),
    "mobileone_s4": MobileOneConfig((3.0, 3.5, 3.5, 4.0), squeeze_excite=True),
}
TOYS = {"mobileone_toy": MobileOneConfig((0.5, 0.5, 0.5, 0.5), conv_branches=2, blocks=(1, 1, 1, 1))}
"""Not published: small enough to be trained on a processor in a minute."""


class MobileOne(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes). The total stride is 32."""

    def __init__(self, config: MobileOneConfig, num_classes: int = 1000) -> None:
        super().__init__()
        widths = [int(base * factor) for base, factor in zip(BASE_WIDTHS, config.widths, strict=True)]
        stem = min(64, widths[0])
        # The stem keeps a single convolution branch, in s0 too.
        self.stage0 = MobileOneBlock(3, stem, 3, stride=2, padding=1)
        # Squeeze-excite, where it is used, sits in the last half of stage 3 and in all of stage 4.
        pairs = config.blocks
        with_se = (0, 0, pairs[2] // 2, pairs[3]) if config.squeeze_excite else (0,) * 4
        self.stage1 = _stage(stem, widths[0], pairs[0], with_se[0], config.conv_branches)
        self.stage2 = _stage(widths[0], widths[1], pairs[1], with_se[1], config.conv_branches)
        self.stage3 = _stage(widths[1], widths[2], pairs[2], with_se[2], config.conv_branches)
        self.stage4 = _stage(widths[2], widths[3], pairs[3], with_se[3], config.conv_branches)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stage0(x)))))
        logits: Tensor = self.linear(self.gap(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, pairs: int, pairs_with_se: int, conv_branches: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for index in range(pairs):
        channels = inputs if index == 0 else outputs
        se = index >= pairs - pairs_with_se
        stride = 2 if index == 0 else 1
        blocks.append(
            MobileOneBlock(
                channels, channels, 3, stride, 1, channels, conv_branches=conv_branches, squeeze_excite=se
            )
        )
        blocks.append(MobileOneBlock(channels, outputs, 1, conv_branches=conv_branches, squeeze_excite=se))
    return nn.Sequential(*blocks)


def build(name: str, *, num_classes: int = 1000) -> MobileOne:
    """The variant `name` (a key of `VARIANTS` or `TOYS`) with PyTorch's default initialisation, as published.

    Raises KeyError for a name that is in neither.
    """
    return MobileOne((VARIANTS | TOYS)[name], num_classes)
