"""The published networks as their authors deploy them: one convolution where training has branches.

Names are those of the official code in its deployed form (`deploy=True`, `inference_mode=True`,
`small_kernel_merged=True`). What that code leaves unmerged (a norm in front, a norm behind a convolution
without branches, a layer scale) stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.models import fastvit, mobileone, replknet, repvgg

Activation = Callable[[], nn.Module]


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduce: str = "reduce", expand: str = "expand") -> None:
        super().__init__()
        self.names = reduce, expand
        self.add_module(reduce, nn.Conv2d(channels, channels // 16, 1))
        self.add_module(expand, nn.Conv2d(channels // 16, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        reduce, expand = (self.get_submodule(name) for name in self.names)
        mean = F.avg_pool2d(x, kernel_size=[x.shape[2], x.shape[3]])
        return x * torch.sigmoid(expand(F.relu(reduce(mean))))


class Reparameterized(nn.Module):
    """activation(se(reparam_conv(x)))."""

    def __init__(
        self, layer: nn.Conv2d, activation: Activation, excite: nn.Module | None = None, name: str = "conv"
    ) -> None:
        super().__init__()
        self.name = f"reparam_{name}" if name == "conv" else name
        self.add_module(self.name, layer)
        self.se = excite or nn.Identity()
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.se(self.get_submodule(self.name)(x)))


class _FiveStages(nn.Module):
    """`stage0` to `stage4`, pooling over the image, a linear layer: how both official repositories end."""

    gap: nn.Module
    linear: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        for place in range(5):
            x = self.get_submodule(f"stage{place}")(x)
        x = self.gap(x)
        return self.linear(x.view(x.size(0), -1))


class RepVGG(_FiveStages):
    def __init__(self, config: repvgg.RepVGGConfig, classes: int = 1000) -> None:
        super().__init__()
        widths = [int(base * factor) for base, factor in zip(repvgg.BASE_WIDTHS, config.widths, strict=True)]
        inputs = min(64, widths[0])
        numbers = iter(range(1, 1000))

        def block(inputs: int, outputs: int, stride: int, groups: int) -> Reparameterized:
            excite = SqueezeExcite(outputs, "down", "up") if config.squeeze_excite else None
            layer = conv(inputs, outputs, 3, stride, groups)
            return Reparameterized(layer, nn.ReLU, excite, "rbr_reparam")

        self.stage0 = block(3, inputs, 2, 1)
        for place, (outputs, count) in enumerate(zip(widths, config.blocks, strict=True), 1):
            stage = nn.Sequential()
            for index in range(count):
                number = next(numbers)
                groups = config.groups if number % 2 == 0 and number <= 26 else 1
                stage.append(block(inputs, outputs, 1 if index else 2, groups))
                inputs = outputs
            self.add_module(f"stage{place}", stage)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)


class MobileOne(_FiveStages):
    def __init__(self, config: mobileone.MobileOneConfig, classes: int = 1000) -> None:
        super().__init__()
        widths = [
            int(base * factor) for base, factor in zip(mobileone.BASE_WIDTHS, config.widths, strict=True)
        ]
        inputs = min(64, widths[0])
        self.stage0 = Reparameterized(conv(3, inputs, 3, 2), nn.ReLU)
        for place, (outputs, pairs) in enumerate(zip(widths, config.blocks, strict=True), 1):
            stage = nn.Sequential()
            for index in range(pairs):
                excited = config.squeeze_excite and (place == 4 or (place == 3 and index >= pairs // 2))
                for layer in (
                    conv(inputs, inputs, 3, 1 if index else 2, inputs),
                    conv(inputs, outputs, 1),
                ):
                    excite = SqueezeExcite(layer.out_channels) if excited else None
                    stage.append(Reparameterized(layer, nn.ReLU, excite))
                inputs = outputs
            self.add_module(f"stage{place}", stage)
        self.gap = nn.AdaptiveAvgPool2d(output_size=1)
        self.linear = nn.Linear(inputs, classes)


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, relu: bool = False
) -> nn.Sequential:
    layers = nn.Sequential()
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers.add_module("conv", layer)
    layers.add_module("bn", nn.BatchNorm2d(outputs))
    if relu:
        layers.add_module("nonlinear", nn.ReLU())
    return layers


class MergedKernel(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.lkb_reparam = conv(channels, channels, kernel, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.lkb_reparam(x)


class RepLKBlock(nn.Module):
    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.pw1 = conv_bn(channels, hidden, 1, relu=True)
        self.pw2 = conv_bn(hidden, channels, 1)
        self.large_kernel = MergedKernel(hidden, kernel)
        self.lk_nonlinear = nn.ReLU()
        self.prelkb_bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lk_nonlinear(self.large_kernel(self.pw1(self.prelkb_bn(x))))
        return x + self.pw2(y)


class RepLKFFN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(channels)
        self.pw1, self.pw2 = conv_bn(channels, 4 * channels, 1), conv_bn(4 * channels, channels, 1)
        self.nonlinear = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pw2(self.nonlinear(self.pw1(self.preffn_bn(x))))


class RepLKStage(nn.Module):
    def __init__(self, config: replknet.RepLKNetConfig, place: int) -> None:
        super().__init__()
        channels, kernel = config.channels[place], config.kernels[place]
        hidden = int(channels * config.expansion)
        pairs = (
            (RepLKBlock(channels, hidden, kernel), RepLKFFN(channels)) for _ in range(config.pairs[place])
        )
        self.blocks = nn.ModuleList(chain.from_iterable(pairs))
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class RepLKNet(nn.Module):
    def __init__(self, config: replknet.RepLKNetConfig, classes: int = 1000) -> None:
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        self.stem = nn.ModuleList(
            [
                conv_bn(3, first, 3, 2, relu=True),
                conv_bn(first, first, 3, 1, first, relu=True),
                conv_bn(first, first, 1, relu=True),
                conv_bn(first, first, 3, 2, first, relu=True),
            ]
        )
        self.stages = nn.ModuleList(RepLKStage(config, place) for place in range(4))
        self.transitions = nn.ModuleList(
            nn.Sequential(
                conv_bn(inputs, outputs, 1, relu=True), conv_bn(outputs, outputs, 3, 2, outputs, relu=True)
            )
            for inputs, outputs in zip(config.channels[:-1], config.channels[1:], strict=True)
        )
        self.norm = nn.BatchNorm2d(last)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.stem:
            x = layer(x)
        for place, stage in enumerate(self.stages):
            x = stage(x)
            if place < len(self.transitions):
                x = self.transitions[place](x)
        return self.head(torch.flatten(self.avgpool(self.norm(x)), 1))


class ConvFFN(nn.Module):
    """FastViT's: the depthwise convolution in front keeps its norm when deployed."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = conv_bn(channels, channels, 7, 1, channels)
        self.fc1, self.act, self.fc2 = (
            nn.Conv2d(channels, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.conv(x))))


class RepMixer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reparam_conv = conv(channels, channels, 3, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.reparam_conv(x)


def layer_scale(channels: int) -> nn.Parameter:
    return nn.Parameter(1e-5 * torch.ones((channels, 1, 1)))


class RepMixerBlock(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.token_mixer, self.convffn = RepMixer(channels), ConvFFN(channels, hidden)
        self.layer_scale = layer_scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.layer_scale * self.convffn(x)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 32
        self.qkv, self.proj = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        shape = batch, channels, height, width = x.shape
        tokens = torch.flatten(x, start_dim=2).transpose(-2, -1)
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, 32).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attention = ((q * 32**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        mixed = self.proj((attention @ v).transpose(1, 2).reshape(batch, height * width, channels))
        return mixed.transpose(-2, -1).reshape(shape)


class AttentionBlock(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.token_mixer = nn.BatchNorm2d(channels), Attention(channels)
        self.convffn = ConvFFN(channels, hidden)
        self.layer_scale_1, self.layer_scale_2 = layer_scale(channels), layer_scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1 * self.token_mixer(self.norm(x))
        return x + self.layer_scale_2 * self.convffn(x)


class FastViT(nn.Module):
    def __init__(self, config: fastvit.FastViTConfig, classes: int = 1000) -> None:
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        self.patch_embed = nn.Sequential(
            Reparameterized(conv(3, first, 3, 2), nn.GELU),
            Reparameterized(conv(first, first, 3, 2, first), nn.GELU),
            Reparameterized(conv(first, first, 1), nn.GELU),
        )
        self.network = nn.ModuleList(_fastvit_layers(config))
        excite = SqueezeExcite(2 * last)
        self.conv_exp = Reparameterized(conv(last, 2 * last, 3, 1, last), nn.GELU, excite)
        self.gap = nn.AdaptiveAvgPool2d(output_size=1)
        self.head = nn.Linear(2 * last, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.network:
            x = layer(x)
        x = self.gap(self.conv_exp(x))
        return self.head(x.view(x.shape[0], -1))


def _fastvit_layers(config: fastvit.FastViTConfig) -> Iterator[nn.Module]:
    for place, (channels, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
        attentive = config.attention and place == 3
        if attentive:
            yield conv(channels, channels, 7, 1, channels)
        kind = AttentionBlock if attentive else RepMixerBlock
        yield nn.Sequential(*(kind(channels, config.expansion * channels) for _ in range(blocks)))
        if place < 3:
            outputs = config.channels[place + 1]
            yield nn.Sequential(
                conv(channels, outputs, 7, 2, channels),
                Reparameterized(conv(outputs, outputs, 1), nn.GELU),
            )


def deployed(name: str) -> nn.Module:
    """The network of this name in its deployed form, in evaluation mode."""
    if name in repvgg.VARIANTS:
        return RepVGG(repvgg.VARIANTS[name]).eval()
    if name in mobileone.VARIANTS:
        return MobileOne(mobileone.VARIANTS[name]).eval()
    if name in replknet.VARIANTS:
        return RepLKNet(replknet.VARIANTS[name]).eval()
    return FastViT(fastvit.VARIANTS[name]).eval()
