"""RepLKNet in its training-time form (Ding et al., CVPR 2022, arXiv:2203.06717).

The large kernel is trained beside a small one, and both see the same input:

    y = BN(depthwise KxK(x)) + BN(depthwise 5x5(x))

Parameter names are those of github.com/DingXiaoH/RepLKNet-pytorch, so its checkpoints of the unmerged
networks load with `strict=True`. One difference: the original trains with synchronised batch norms
unless told not to, here `norm_layer=nn.SyncBatchNorm` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from reparamkit.models.stochastic_depth import DropPath, rates

Norm = Callable[[int], nn.Module]


class ConvNorm(nn.Sequential):
    """A bias-free convolution `conv` (same size at stride 1), a norm `bn`, and perhaps a ReLU `nonlinear`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Norm,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        )
        self.add_module("bn", norm(outputs))
        if relu:
            self.add_module("nonlinear", nn.ReLU())


class LargeKernelConv(nn.Module):
    """A depthwise large kernel, with a small one beside it (guideline 3): (N, C, H, W) -> same."""

    def __init__(self, channels: int, kernel: int, small_kernel: int | None, norm: Norm) -> None:
        super().__init__()
        self.lkb_origin = ConvNorm(channels, channels, kernel, norm, groups=channels)
        self.small_conv = (
            None
            if small_kernel is None
            else ConvNorm(channels, channels, small_kernel, norm, groups=channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lkb_origin(x)
        if self.small_conv is not None:
            out = out + self.small_conv(x)
        return out


class LargeKernelBlock(nn.Module):
    """x + pw2(relu(large_kernel(pw1(BN(x))))) (figure 2 of the paper): (N, C, H, W) -> same."""

    def __init__(
        self, channels: int, hidden: int, kernel: int, small_kernel: int | None, drop_path: float, norm: Norm
    ) -> None:
        super().__init__()
        self.pw1 = ConvNorm(channels, hidden, 1, norm, relu=True)
        self.pw2 = ConvNorm(hidden, channels, 1, norm)
        self.large_kernel = LargeKernelConv(hidden, kernel, small_kernel, norm)
        self.lk_nonlinear = nn.ReLU()
        self.prelkb_bn = norm(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.lk_nonlinear(self.large_kernel(self.pw1(self.prelkb_bn(x))))
        branch: Tensor = self.drop_path(self.pw2(inner))
        return x + branch


class ConvFFN(nn.Module):
    """x + pw2(gelu(pw1(BN(x)))), pointwise throughout: (N, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int, drop_path: float, norm: Norm) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.preffn_bn = norm(channels)
        self.pw1 = ConvNorm(channels, hidden, 1, norm)
        self.pw2 = ConvNorm(hidden, channels, 1, norm)
        self.nonlinear = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.nonlinear(self.pw1(self.preffn_bn(x)))
        branch: Tensor = self.drop_path(self.pw2(inner))
        return x + branch


@dataclass(frozen=True)
class RepLKNetConfig:
    """One architecture of section 4.1 of the paper; `expansion` widens the depthwise convolutions."""

    kernels: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    small_kernel: int | None = 5
    expansion: float = 1.0
    pairs: tuple[int, int, int, int] = (2, 2, 18, 2)


VARIANTS = {
    "replknet_31b": RepLKNetConfig((31, 29, 27, 13), (128, 256, 512, 1024)),
    "replknet_31l": RepLKNetConfig((31, 29, 27, 13), (192, 384, 768, 1536)),
    "replknet_xl": RepLKNetConfig((27, 27, 27, 13), (256, 512, 1024, 2048), small_kernel=None, expansion=1.5),
}


class Stage(nn.Module):
    """Large-kernel and feed-forward blocks, alternating in `blocks`: (N, C, H, W) -> same.

    With `norm_features` it has a batch norm `norm` for its features; the blocks' result is not normalised.
    """

    def __init__(
        self,
        config: RepLKNetConfig,
        index: int,
        drop_paths: Iterator[float],
        norm: Norm,
        *,
        norm_features: bool,
    ) -> None:
        super().__init__()
        channels = config.channels[index]
        hidden = int(channels * config.expansion)
        self.blocks = nn.ModuleList()
        for _ in range(config.pairs[index]):
            rate = next(drop_paths)
            kernel = config.kernels[index]
            self.blocks.append(LargeKernelBlock(channels, hidden, kernel, config.small_kernel, rate, norm))
            self.blocks.append(ConvFFN(channels, 4 * channels, rate, norm))
        self.norm = norm(channels) if norm_features else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class RepLKNet(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes). The total stride is 32.

    With `out_indices`, a backbone for dense prediction: the result is the list of these stages' feature maps,
    (N, channels[i], H / 2^(i+2), W / 2^(i+2)), normalised each with `norm_intermediate_features`.
    `drop_path_rate` is the last block's rate of stochastic depth (0.3 in the published training of 31B and
    31L), `norm_layer` builds every batch norm from its number of channels.
    """

    def __init__(
        self,
        config: RepLKNetConfig,
        num_classes: int = 1000,
        *,
        drop_path_rate: float = 0.0,
        norm_layer: Norm = nn.BatchNorm2d,
        out_indices: Sequence[int] | None = None,
        norm_intermediate_features: bool = False,
    ) -> None:
        super().__init__()
        self.out_indices = out_indices
        first, last = config.channels[0], config.channels[-1]
        drop_paths = iter(rates(drop_path_rate, sum(config.pairs)))
        self.stem = nn.ModuleList(
            [
                ConvNorm(3, first, 3, norm_layer, stride=2, relu=True),
                ConvNorm(first, first, 3, norm_layer, groups=first, relu=True),
                ConvNorm(first, first, 1, norm_layer, relu=True),
                ConvNorm(first, first, 3, norm_layer, stride=2, groups=first, relu=True),
            ]
        )
        self.stages = nn.ModuleList(
            Stage(config, index, drop_paths, norm_layer, norm_features=norm_intermediate_features)
            for index in range(4)
        )
        self.transitions = nn.ModuleList(
            nn.Sequential(
                ConvNorm(inputs, outputs, 1, norm_layer, relu=True),
                ConvNorm(outputs, outputs, 3, norm_layer, stride=2, groups=outputs, relu=True),
            )
            for inputs, outputs in zip(config.channels[:-1], config.channels[1:], strict=True)
        )
        if out_indices is None:
            self.norm = norm_layer(last)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(last, num_classes)

    def forward_features(self, x: Tensor) -> Tensor | list[Tensor]:
        """The last stage's map (N, channels[3], H/32, W/32), or with `out_indices` the list of maps."""
        for layer in self.stem:
            x = layer(x)
        features = []
        for index, stage in enumerate(self.stages.children()):
            x = stage(x)
            if self.out_indices is not None and index in self.out_indices:
                features.append(stage.get_submodule("norm")(x))
            if index < len(self.transitions):
                x = self.transitions[index](x)
        return x if self.out_indices is None else features

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        features = self.forward_features(x)
        if isinstance(features, list):
            return features
        logits: Tensor = self.head(self.avgpool(self.norm(features)).flatten(1))
        return logits


def build(
    name: str,
    *,
    num_classes: int = 1000,
    drop_path_rate: float = 0.0,
    norm_layer: Norm = nn.BatchNorm2d,
    out_indices: Sequence[int] | None = None,
    norm_intermediate_features: bool = False,
) -> RepLKNet:
    """The variant `name` (a key of `VARIANTS`) with PyTorch's default initialisation, as published.

    Raises KeyError for a name that is not in `VARIANTS`.
    """
    return RepLKNet(
        VARIANTS[name],
        num_classes,
        drop_path_rate=drop_path_rate,
        norm_layer=norm_layer,
        out_indices=out_indices,
        norm_intermediate_features=norm_intermediate_features,
    )
