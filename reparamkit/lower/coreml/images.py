"""The normalisation of an image: a network that takes pixels, values from 0 to 255.

    x = (pixels / scale − mean) / std  =  (pixels + shift) · factor        shift = −mean · scale
                                                                           factor = 1 / (scale · std)

Core ML's ImageType knows one scale for all channels and a shift per channel. A factor per channel can be part
of the first convolution, whatever its padding, because scaled zeros are zeros. The shift can where the
convolution has no padding; else it is left, and is Core ML's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from reparamkit.compare.inputs.input_spec import Kind
from reparamkit.lower.coreml.options import ImageInput
from reparamkit.support.inputs import map_tensors

PIXELS = Kind("0..255", 0.0, 255.0)


class Normalised(nn.Module):
    """A network whose one tensor (N, C, H, W) is given as pixels, fed with (pixels / scale − mean) / std."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, image: ImageInput, dtype: torch.dtype) -> None:
        super().__init__()
        self.training = False  # not by eval(): a module of torch.export's lets nobody set its mode
        self.network = network
        self.scale = image.scale
        self.register_buffer("mean", _channels(image.mean, dtype))
        self.register_buffer("std", _channels(image.std, dtype))

    def forward(self, *args: Any, **kwargs: Any) -> object:
        args, kwargs = map_tensors(
            lambda _, pixels: (pixels / self.scale - self.mean) / self.std, args, kwargs
        )
        return self.network(*args, **kwargs)


def shift_of(image: ImageInput) -> tuple[float, ...]:
    """What is added to each channel, before the factor."""
    return tuple(-mean * image.scale for mean in image.mean)


def shift_and_factor(image: ImageInput, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What is added to the channels, and what they are multiplied by then, of the shape (1, C, 1, 1)."""
    factor = [1 / (image.scale * std) for std in image.std]
    return _channels(shift_of(image), dtype), _channels(factor, dtype)


def pixels_of(example: torch.Tensor, image: ImageInput) -> torch.Tensor:
    """The images (N, C, H, W) nearest to what an example holds, in whole numbers from 0 to 255."""
    mean, std = _channels(image.mean, torch.float64), _channels(image.std, torch.float64)
    pixels = (example.detach().cpu().double() * std + mean) * image.scale
    return pixels.round().clamp(0, 255).to(example.dtype)


def _channels(values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype).view(1, -1, 1, 1)
