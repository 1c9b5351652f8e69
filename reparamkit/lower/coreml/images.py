"""A network behind the normalisation of an image: it takes pixels, values from 0 to 255.

    x = (pixels / scale − mean) / std  =  (pixels + shift) · factor        shift = −mean · scale
                                                                           factor = 1 / (scale · std)

Core ML's ImageType knows one scale for all channels and a shift per channel. A factor per channel goes into
the first convolution, whatever its padding, because scaled zeros are zeros; fold the network behind `Scaled`
for that. The shift goes there too where the convolution has no padding (the network behind `Normalised` has
then no operator more); else it is Core ML's.
"""

from __future__ import annotations

import torch
from torch import nn

from reparamkit.compare.inputs.input_spec import Kind
from reparamkit.lower.coreml.options import ImageInput

PIXELS = Kind("0..255", 0.0, 255.0)
INNER = "network"
"""The attribute that holds the network behind a normalisation."""


class Normalised(nn.Module):
    """A network of one input (N, C, H, W), fed with (pixels / scale − mean) / std."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, image: ImageInput, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.scale = image.scale
        self.register_buffer("mean", _channels(image.mean, dtype))
        self.register_buffer("std", _channels(image.std, dtype))

    def forward(self, pixels: torch.Tensor) -> object:
        return self.network((pixels / self.scale - self.mean) / self.std)


class Scaled(nn.Module):
    """A network of one input (N, C, H, W), fed with pixels · factor: the shift is added before."""

    factor: torch.Tensor

    def __init__(self, network: nn.Module, image: ImageInput, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("factor", _channels([1 / (image.scale * std) for std in image.std], dtype))

    def forward(self, pixels: torch.Tensor) -> object:
        return self.network(pixels * self.factor)


def shift_of(image: ImageInput) -> tuple[float, ...]:
    """What Core ML has to add to the channels before a `Scaled` network."""
    return tuple(-mean * image.scale for mean in image.mean)


def pixels_of(example: torch.Tensor, image: ImageInput) -> torch.Tensor:
    """The image (1, C, H, W) that is nearest to what an example holds, in whole numbers from 0 to 255."""
    mean, std = _channels(image.mean, torch.float64), _channels(image.std, torch.float64)
    pixels = (example.detach().cpu()[:1].double() * std + mean) * image.scale
    return pixels.round().clamp(0, 255).to(example.dtype)


def _channels(values: tuple[float, ...] | list[float], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype).view(1, -1, 1, 1)
