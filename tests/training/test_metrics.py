"""Scores against scikit-learn's and against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from reparamkit.training.metrics import Counts, evaluate

N, K = 300, 9


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (N,), generator=generator)
    logits = torch.randn(N, K, generator=generator) + 2 * torch.nn.functional.one_hot(labels, K)
    return logits, labels


def test_top_1_top_5_and_loss_are_scikit_learns() -> None:
    logits, labels = sample()
    counts = Counts()
    counts.add(logits, labels)
    scores = counts.scores()
    probabilities = logits.double().softmax(1).numpy()
    assert scores.images == N
    assert scores.top1 == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert scores.top5 == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    assert scores.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-9)


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    logits, labels = sample()
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    counts = Counts()
    counts.add(logits, labels)
    assert counts.scores().calibration_error == pytest.approx(expected, rel=1e-9)


def test_sums_of_batches_and_processes_are_the_whole() -> None:
    logits, labels = sample()
    whole = Counts()
    whole.add(logits, labels)
    halves = [Counts(), Counts()]
    for place, half in enumerate(halves):
        half.add(logits[place::2], labels[place::2])
    together = evaluate(lambda x: x, [(logits[::2], labels[::2])], reduce=lambda sums: sums + halves[1].sums)
    for name, value in vars(whole.scores()).items():
        assert vars(together)[name] == pytest.approx(value, rel=1e-12)


def test_without_images_nothing_is_claimed() -> None:
    assert math.isnan(Counts().scores().top1)


def test_fewer_than_five_classes() -> None:
    counts = Counts()
    counts.add(torch.eye(3), torch.tensor([0, 1, 0]))
    assert counts.scores().top5 == 1.0
    assert counts.scores().top1 == pytest.approx(2 / 3)
