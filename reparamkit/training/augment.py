"""Augmentation of batches, on the device of the images, with kornia.

    flip, RandAugment, erasing   change images (N, 3, S, S) and leave their labels
    mixup, cutmix                mix images in pairs, and their labels in the same shares

    mixup    x = (1 − λ) xᵢ + λ xⱼ,  λ uniform in [0, 1]        t = (1 − λ) tᵢ + λ tⱼ
    cutmix   a rectangle of xᵢ is that of xⱼ, 1 − λ its share    t = λ tᵢ + (1 − λ) tⱼ

(Cubuk et al., arXiv:1909.13719; Zhong et al., arXiv:1708.04896; Zhang et al., arXiv:1710.09412; Yun et al.,
arXiv:1905.04899.) Every draw comes from torch's random state, which a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from reparamkit.training.config import Config

Transform = Callable[[Tensor], Tensor]


class Augmentation:
    """What a configuration asks for, applied to images from 0 to 1.

    Args:
        config: the settings.
        mean, std: of the channels; what normalises the images at last.
        num_classes: the length of the labels once images are mixed.
    """

    def __init__(
        self, config: Config, mean: tuple[float, ...], std: tuple[float, ...], num_classes: int
    ) -> None:
        self._transforms = _transforms(config)
        self._mixup, self._cutmix = config.mixup, config.cutmix
        self._erasing = _erasing(config.erasing)
        self._mean, self._std = mean, std
        self._num_classes = num_classes

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) of bytes and labels (N) -> normalised images, and labels.

        The labels are (N, num_classes) of probabilities where the images of this batch were mixed.
        """
        x = images.float() / 255
        for transform in self._transforms:
            x = transform(x)
        x = normalised(x, self._mean, self._std)
        if self._erasing is not None:
            x = self._erasing(x)  # normalised already: what is erased has the mean of all images
        if self._mixup + self._cutmix == 0:
            return x, labels
        draw = torch.rand(()).item()
        if draw < self._mixup:
            return mixup(x, labels, self._num_classes)
        if draw < self._mixup + self._cutmix:
            return cutmix(x, labels, self._num_classes)
        return x, labels


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x − mean) / std for each channel."""
    centre = torch.tensor(mean, device=images.device, dtype=images.dtype)[:, None, None]
    spread = torch.tensor(std, device=images.device, dtype=images.dtype)[:, None, None]
    return (images - centre) / spread


def mixup(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with another, and probabilities (N, num_classes) in the same shares."""
    from kornia.augmentation import RandomMixUpV2

    mixed, pairs = RandomMixUpV2(p=1.0, data_keys=["input", "class"])(images, labels)
    return mixed, mixed_labels(pairs[:, 0], pairs[:, 1], 1 - pairs[:, 2], num_classes)


def cutmix(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """A rectangle of each image replaced by another's, and probabilities (N, num_classes) by area."""
    from kornia.augmentation import RandomCutMixV2

    augmentation = RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True)
    mixed, rows = augmentation(images, labels)
    pairs = rows[0]
    return mixed, mixed_labels(pairs[:, 0], pairs[:, 1], pairs[:, 2], num_classes)


def mixed_labels(first: Tensor, second: Tensor, share: Tensor, num_classes: int) -> Tensor:
    """share · onehot(first) + (1 − share) · onehot(second), each argument (N)."""
    ones = F.one_hot(first.long(), num_classes).to(share.dtype)
    others = F.one_hot(second.long(), num_classes).to(share.dtype)
    return share[:, None] * ones + (1 - share)[:, None] * others


def flipped(images: Tensor, probability: float) -> Tensor:
    """Each image mirrored, left for right, with this probability."""
    if probability == 0:
        return images
    from kornia.augmentation import RandomHorizontalFlip

    mirrored: Tensor = RandomHorizontalFlip(p=probability)(images)
    return mirrored


def _transforms(config: Config) -> list[Transform]:
    transforms: list[Transform] = []
    if config.flip > 0:
        transforms.append(partial(flipped, probability=config.flip))
    if config.randaugment > 0:
        from kornia.augmentation.auto import RandAugment

        # kornia's magnitudes go from 0 to 30, those of the paper's successors from 0 to 10 and above
        transforms.append(RandAugment(n=config.randaugment_layers, m=config.randaugment))
    return transforms


def _erasing(probability: float) -> Transform | None:
    if probability == 0:
        return None
    from kornia.augmentation import RandomErasing

    erase: Transform = RandomErasing(scale=(0.02, 1 / 3), ratio=(0.3, 3.3), p=probability)
    return erase
