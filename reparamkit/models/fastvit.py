"""FastViT in its training-time form (Vasu et al., ICCV 2023, arXiv:2303.14189).

Three structures fold: MobileOne blocks (stem, patch embeddings, head), the token mixer

    RepMixer(x) = x + γ · (mixer(x) − norm(x))

whose `mixer` is a depthwise MobileOne block without activation and whose `norm` is a batch norm, and the
conditional positional encoding x + depthwise7x7(x). Parameter names are those of github.com/apple/ml-fastvit,
so its checkpoints of the unfused networks load with `strict=True`.

Two quirks of the original are kept, since its weights were trained with them: the large-kernel convolution
of a patch embedding computes an activation and drops it, and with `fork_feat` the last feature map of the
attention variants is taken after the positional encoding, before stage 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reparamkit.models.mobileone import ConvNorm, MobileOneBlock
from reparamkit.models.stochastic_depth import DropPath, rates


class LargeKernelConv(nn.Module):
    """Depthwise 7x7 and 3x3 branches of stride 2: (N, C, H, W) -> (N, outputs, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.activation = nn.GELU()
        self.lkb_origin = ConvNorm(inputs, outputs, 7, 2, 3, inputs)
        self.small_conv = ConvNorm(inputs, outputs, 3, 2, 1, inputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lkb_origin(x) + self.small_conv(x)
        # The result is dropped, as in the original, whose weights expect that.
        self.activation(out)
        return out


class PatchEmbed(nn.Module):
    """Between stages: (N, C, H, W) -> (N, outputs, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            LargeKernelConv(inputs, outputs), MobileOneBlock(outputs, outputs, 1, activation=nn.GELU)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out


class RepMixer(nn.Module):
    """x + layer_scale · (mixer(x) − norm(x)) (section 3.1): (N, C, H, W) -> same."""

    def __init__(self, channels: int, layer_scale: float) -> None:
        super().__init__()
        self.norm = MobileOneBlock(
            channels,
            channels,
            3,
            padding=1,
            groups=channels,
            conv_branches=0,
            scale_branch=False,
            activation=nn.Identity,
        )
        self.mixer = MobileOneBlock(channels, channels, 3, padding=1, groups=channels, activation=nn.Identity)
        self.layer_scale = _scale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        difference: Tensor = self.mixer(x) - self.norm(x)
        return x + self.layer_scale * difference


class ConvFFN(nn.Module):
    """Depthwise 7x7 and batch norm, then a pointwise perceptron (section 3.3): (N, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 7, 1, 3, channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(self.conv(x))))
        return out


class RepMixerBlock(nn.Module):
    """A RepMixer, and a residual ConvFFN: (N, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        self.token_mixer = RepMixer(channels, layer_scale)
        self.convffn = ConvFFN(channels, hidden)
        self.drop_path = DropPath(drop_path)
        self.layer_scale = _scale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.token_mixer(x)
        branch: Tensor = self.drop_path(self.layer_scale * self.convffn(mixed))
        return mixed + branch


class Attention(nn.Module):
    """Multi-head self-attention over positions, 32 channels a head: (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 32
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(n, height * width, 3, self.heads, 32).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = ((q * 32**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        mixed: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, height * width, channels))
        return mixed.transpose(1, 2).reshape(n, channels, height, width)


class AttentionBlock(nn.Module):
    """Residual attention on a batch norm, and a residual ConvFFN: (N, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.token_mixer = Attention(channels)
        self.convffn = ConvFFN(channels, hidden)
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = _scale(channels, layer_scale)
        self.layer_scale_2 = _scale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.drop_path(self.layer_scale_1 * self.token_mixer(self.norm(x)))
        x = x + attended
        branch: Tensor = self.drop_path(self.layer_scale_2 * self.convffn(x))
        return x + branch


class PositionalEncoding(nn.Module):
    """pe(x) + x with a depthwise 7x7 `pe` (Chu et al., 2021, arXiv:2102.10882): (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pe = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pe(x) + x
        return out


@dataclass(frozen=True)
class FastViTConfig:
    """One row of table 2 of the paper; `attention` replaces the token mixers of stage 4."""

    blocks: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    expansion: int = 4
    attention: bool = True
    layer_scale: float = 1e-5


_SMALL = (64, 128, 256, 512)

VARIANTS = {
    "fastvit_t8": FastViTConfig((2, 2, 4, 2), (48, 96, 192, 384), expansion=3, attention=False),
    "fastvit_t12": FastViTConfig((2, 2, 6, 2), _SMALL, expansion=3, attention=False),
    "fastvit_s12": FastViTConfig((2, 2, 6, 2), _SMALL, attention=False),
    "fastvit_sa12": FastViTConfig((2, 2, 6, 2), _SMALL),
    "fastvit_sa24": FastViTConfig((4, 4, 12, 4), _SMALL),
    "fastvit_sa36": FastViTConfig((6, 6, 18, 6), _SMALL, layer_scale=1e-6),
    "fastvit_ma36": FastViTConfig((6, 6, 18, 6), (76, 152, 304, 608), layer_scale=1e-6),
}
# A layer scale near 0 lets a deep network start as a shallow one, and a shallow one not start at all.
TOYS = {"fastvit_toy": FastViTConfig((1, 1, 1, 1), (16, 32, 64, 128), expansion=2, layer_scale=0.1)}
"""Not published: small enough to be trained on a processor in a minute."""


class FastViT(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes).

    With `fork_feat`, a backbone for dense prediction: the result is a list of four normalised feature
    maps, (N, channels[i], H / 2^(i+2), W / 2^(i+2)). `drop_path_rate` is the last block's rate.
    """

    _FEATURES = (0, 2, 4, 6)

    def __init__(
        self,
        config: FastViTConfig,
        num_classes: int = 1000,
        *,
        drop_path_rate: float = 0.0,
        fork_feat: bool = False,
    ) -> None:
        super().__init__()
        self.fork_feat = fork_feat
        first, last = config.channels[0], config.channels[-1]
        self.patch_embed = nn.Sequential(
            MobileOneBlock(3, first, 3, 2, 1, activation=nn.GELU),
            MobileOneBlock(first, first, 3, 2, 1, groups=first, activation=nn.GELU),
            MobileOneBlock(first, first, 1, activation=nn.GELU),
        )
        drop_paths = iter(rates(drop_path_rate, sum(config.blocks)))
        self.network = nn.ModuleList()
        for index, channels in enumerate(config.channels):
            if config.attention and index == 3:
                self.network.append(PositionalEncoding(channels))
            self.network.append(_stage(config, index, drop_paths))
            if index < 3:
                self.network.append(PatchEmbed(channels, config.channels[index + 1]))
        if fork_feat:
            for position, channels in zip(self._FEATURES, config.channels, strict=True):
                self.add_module(f"norm{position}", nn.BatchNorm2d(channels))
        else:
            self.conv_exp = MobileOneBlock(
                last, 2 * last, 3, 1, 1, groups=last, squeeze_excite=True, activation=nn.GELU
            )
            self.gap = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(2 * last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_embeddings(self, x: Tensor) -> Tensor:
        """The stem: images (N, 3, H, W) -> (N, channels[0], H/4, W/4)."""
        embedded: Tensor = self.patch_embed(x)
        return embedded

    def forward_tokens(self, x: Tensor) -> Tensor | list[Tensor]:
        """The stages behind the stem: (N, channels[3], H/32, W/32), or with `fork_feat` the four maps."""
        features = []
        for position, layer in enumerate(self.network):
            x = layer(x)
            if self.fork_feat and position in self._FEATURES:
                features.append(self.get_submodule(f"norm{position}")(x))
        return features if self.fork_feat else x

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        tokens = self.forward_tokens(self.forward_embeddings(x))
        if isinstance(tokens, list):
            return tokens
        logits: Tensor = self.head(self.gap(self.conv_exp(tokens)).flatten(1))
        return logits


def _stage(config: FastViTConfig, index: int, drop_paths: Iterator[float]) -> nn.Sequential:
    block = AttentionBlock if config.attention and index == 3 else RepMixerBlock
    channels = config.channels[index]
    hidden = channels * config.expansion
    return nn.Sequential(
        *(block(channels, hidden, next(drop_paths), config.layer_scale) for _ in range(config.blocks[index]))
    )


def _scale(channels: int, value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((channels, 1, 1), value))


def build(
    name: str, *, num_classes: int = 1000, drop_path_rate: float = 0.0, fork_feat: bool = False
) -> FastViT:
    """The variant `name` (a key of `VARIANTS` or `TOYS`) with its published initialisation.

    Raises KeyError for a name that is in neither.
    """
    return FastViT((VARIANTS | TOYS)[name], num_classes, drop_path_rate=drop_path_rate, fork_feat=fork_feat)
