"""One image: decoded, cropped, of the network's size, as a tensor (3, S, S) of bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from reparamkit.support.text import one_line

_RATIOS = (3 / 4, 4 / 3)


class CorruptImage(Exception):
    """An image that cannot be read."""


def decoded(value: Any, name: str) -> Image.Image:
    """A PIL image in RGB of whatever a sample holds.

    Raises CorruptImage where it cannot be read, or is no image.
    """
    try:
        if isinstance(value, Mapping):
            content = value.get("bytes")
            name = str(value.get("path") or name)
            value = Image.open(io.BytesIO(content if content is not None else Path(name).read_bytes()))
        elif isinstance(value, Tensor):
            value = Image.fromarray(value.cpu().numpy())
        elif isinstance(value, np.ndarray):
            value = Image.fromarray(value)
        if not isinstance(value, Image.Image):
            raise TypeError(f"it is a {type(value).__name__}")
        return value.convert("RGB")
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        reason = one_line(error)
        raise CorruptImage(f"the image {name} cannot be read: {reason}") from error


def central(image: Image.Image, size: int, crop: float) -> Tensor:
    """The central square, `crop` of the shorter side long, resized to (3, size, size)."""
    fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC, bleed=(1 - crop) / 2)
    return _as_tensor(fitted)


def random_crop(image: Image.Image, size: int, least: float, seed: int) -> Tensor:
    """A crop of `least` to all of the image's area, sides 3:4 to 4:3, resized to (3, size, size).

    (Szegedy et al., 2015, arXiv:1409.4842, section 6.) The crop depends on `seed` alone, not on the process
    that reads the image or on what was drawn before.
    """
    from kornia.augmentation.random_generator import ResizedCropGenerator

    shape = torch.Size((1, 3, image.height, image.width))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        corners = ResizedCropGenerator((size, size), (least, 1.0), _RATIOS)(shape)["src"][0]
    left, top = corners[0].tolist()
    right, bottom = (corners[2] + 1).tolist()
    box = (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom))
    return _as_tensor(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
