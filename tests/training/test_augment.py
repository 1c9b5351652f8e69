"""Augmentation: what mixes images mixes labels in the same shares, and random states reproduce it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reparamkit.training.augment import Augmentation, cutmix, mixup, normalised
from reparamkit.training.config import Config

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def constants() -> tuple[Tensor, Tensor]:
    """Image n is n everywhere, so that shares can be read off the pixels; its label is n."""
    labels = torch.arange(8)
    return labels.double()[:, None, None, None].expand(8, 3, 16, 16).clone(), labels


def test_mixup_mixes_labels_as_it_mixes_images() -> None:
    torch.manual_seed(0)
    images, labels = constants()
    mixed, target = mixup(images, labels, 8)
    torch.testing.assert_close(target.sum(1), torch.ones(8, dtype=torch.float64))
    expected = (target * torch.arange(8).double()).sum(1)
    torch.testing.assert_close(mixed, expected[:, None, None, None].expand_as(mixed))
    assert (target.max(1).values < 1).any()


def test_cutmix_weighs_labels_by_area() -> None:
    torch.manual_seed(1)
    images, labels = constants()
    mixed, target = cutmix(images, labels, 8)
    for image, row in zip(mixed, target, strict=True):
        area = torch.stack([(image[0] == value).double().mean() for value in range(8)])
        torch.testing.assert_close(row, area)
    assert (target.max(1).values < 1).any()


def everything(**changes: float) -> Config:
    settings: dict[str, Any] = {
        "flip": 0.5,
        "randaugment": 9,
        "erasing": 0.5,
        "mixup": 0.5,
        "cutmix": 0.5,
    } | changes
    return Config.resolve(**settings)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, 24, 24), dtype=torch.uint8, generator=generator)
    return images, torch.arange(6)


def test_the_random_state_decides_everything() -> None:
    augment = Augmentation(everything(), MEAN, STD, 6)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(augment(*batch()))
    assert results[0][0].equal(results[1][0])
    assert results[0][1].equal(results[1][1])


def test_without_augmentation_images_are_normalised_and_labels_left() -> None:
    images, labels = batch()
    x, target = Augmentation(Config(), MEAN, STD, 6)(images, labels)
    assert target.equal(labels)
    expected = (images.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(normalised(images.float() / 255, MEAN, STD), expected)


def test_shares_of_batches_are_mixed() -> None:
    augment = Augmentation(everything(mixup=0.3, cutmix=0.2, randaugment=0), MEAN, STD, 6)
    torch.manual_seed(0)
    mixed = sum(augment(*batch())[1].ndim == 2 for _ in range(200)) / 200
    assert 0.4 < mixed < 0.6


@pytest.mark.parametrize("name", ["flip", "randaugment", "erasing"])
def test_each_augmentation_changes_images_and_keeps_their_shape(name: str) -> None:
    value = 9 if name == "randaugment" else 1.0
    torch.manual_seed(0)
    images, labels = batch()
    x, target = Augmentation(Config.resolve(None, **{name: value}), MEAN, STD, 6)(images, labels)
    plain, _ = Augmentation(Config(), MEAN, STD, 6)(images, labels)
    assert x.shape == plain.shape
    assert target.equal(labels)
    assert not x.equal(plain)
    assert x.isfinite().all()
