"""RepNets' example: a small plain network of RepVGG blocks, for images of about 32 pixels.

    y = relu(conv3x3-BN(x) + conv1x1-BN(x) + BN(x))

Nine blocks (`reparamkit.models.repvgg.RepVGGBlock`) in three stages, each of which halves the sides first,
then the mean over the positions and a linear classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from reparamkit.models.repvgg import RepVGGBlock


@dataclass(frozen=True)
class RepNetConfig:
    """Channels and strides of the blocks, in order."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


TOYS = {"repnets_toy": RepNetConfig((16, 16, 16, *(32,) * 6), (2, 1, 1, 2, 1, 1, 2, 1, 1))}


class RepNet(nn.Module):
    """The classifier: images (N, 3, H, W) -> logits (N, num_classes). The total stride is 8."""

    def __init__(self, config: RepNetConfig, num_classes: int = 1000) -> None:
        super().__init__()
        inputs = (3, *config.channels[:-1])
        self.blocks = nn.Sequential(
            *(
                RepVGGBlock(before, after, stride)
                for before, after, stride in zip(inputs, config.channels, config.strides, strict=True)
            )
        )
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(config.channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.gap(self.blocks(x)).flatten(1))
        return logits


def build(name: str, *, num_classes: int = 1000) -> RepNet:
    """The variant `name` (a key of `TOYS`) with PyTorch's default initialisation.

    Raises KeyError for a name that is not there.
    """
    return RepNet(TOYS[name], num_classes)
