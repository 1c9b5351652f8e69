"""Each loss against its formula written out in float64, and against timm's where timm has one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reparamkit.errors import UnusableInput
from reparamkit.training.augment import mixed_labels
from reparamkit.training.losses import base_loss, distilled, hard_distillation, soft_distillation
from tests.timm_import import import_timm

N, K = 6, 5


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def softmax(row: list[float], tau: float = 1.0) -> list[float]:
    powers = [math.exp(value / tau) for value in row]
    return [power / sum(powers) for power in powers]


def probabilities(seed: int) -> Tensor:
    return draw(seed, N, K).softmax(1)


LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_spreads_a_share_over_all_classes(smoothing: float) -> None:
    logits = draw(0, N, K)
    total = 0.0
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        for k, p in enumerate(softmax(row)):
            target = (1 - smoothing) * (k == label) + smoothing / K
            total -= target * math.log(p)
    assert base_loss(logits, LABELS, smoothing).item() == pytest.approx(total / N, rel=1e-12)


def test_label_smoothing_is_timms() -> None:
    import_timm()
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy

    logits = draw(1, N, K)
    theirs = LabelSmoothingCrossEntropy(0.1)(logits, LABELS)
    torch.testing.assert_close(base_loss(logits, LABELS, 0.1), theirs, rtol=1e-12, atol=0)


def test_soft_targets_are_weighted_one_by_one_as_in_timm() -> None:
    import_timm()
    from timm.loss.cross_entropy import SoftTargetCrossEntropy

    logits, target = draw(2, N, K), probabilities(3)
    total = 0.0
    for row, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        total -= sum(t * math.log(p) for t, p in zip(wanted, softmax(row), strict=True))
    assert base_loss(logits, target).item() == pytest.approx(total / N, rel=1e-12)
    torch.testing.assert_close(
        base_loss(logits, target), SoftTargetCrossEntropy()(logits, target), rtol=1e-12, atol=0
    )


def test_smoothing_of_mixed_labels_is_timms() -> None:
    import_timm()
    from timm.data.mixup import mixup_target
    from timm.loss.cross_entropy import SoftTargetCrossEntropy

    logits = draw(4, N, K)
    share = torch.full((N,), 0.3, dtype=torch.float64)
    ours = base_loss(logits, mixed_labels(LABELS, LABELS.flip(0), share, K), 0.1)
    target = mixup_target(LABELS, K, lam=0.3, smoothing=0.1).double()
    torch.testing.assert_close(ours, SoftTargetCrossEntropy()(logits, target), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_soft_distillation_is_the_divergence_times_the_squared_temperature(tau: float) -> None:
    logits, teacher = draw(5, N, K), draw(6, N, K)
    total = 0.0
    for student_row, teacher_row in zip(logits.tolist(), teacher.tolist(), strict=True):
        for p, q in zip(softmax(teacher_row, tau), softmax(student_row, tau), strict=True):
            total += p * math.log(p / q)
    expected = total / N * tau**2
    assert soft_distillation(logits, teacher, tau).item() == pytest.approx(expected, rel=1e-10)


def test_soft_distillation_from_an_equal_teacher_is_zero_and_has_no_gradient() -> None:
    logits = draw(7, N, K).requires_grad_()
    loss = soft_distillation(logits, logits.detach(), 2.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert abs(loss.item()) < 1e-15
    assert gradient.abs().max() < 1e-15


def test_the_size_of_the_gradient_hardly_depends_on_a_high_temperature() -> None:
    """What τ² is for."""
    logits, teacher = draw(8, N, K).requires_grad_(), draw(9, N, K)
    norms = [
        torch.autograd.grad(soft_distillation(logits, teacher, tau), logits)[0].norm().item()
        for tau in (20.0, 40.0)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_hard_distillation_takes_the_teachers_decision_for_a_label() -> None:
    logits, teacher = draw(10, N, K), draw(11, N, K)
    rows = zip(logits.tolist(), teacher.tolist(), strict=True)
    total = -sum(math.log(softmax(row)[wise.index(max(wise))]) for row, wise in rows)
    assert hard_distillation(logits, teacher).item() == pytest.approx(total / N, rel=1e-12)


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_weighs_the_two_losses(kind: str, alpha: float) -> None:
    logits, teacher = draw(12, N, K), draw(13, N, K)
    base = base_loss(logits, LABELS)
    other = soft_distillation(logits, teacher, 3.0) if kind == "soft" else hard_distillation(logits, teacher)
    together = distilled(base, logits, teacher, kind, alpha, 3.0)
    assert together.item() == pytest.approx((1 - alpha) * base.item() + alpha * other.item(), rel=1e-12)


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(UnusableInput, match="the teacher tells 7 classes apart and the network 5"):
        distilled(torch.tensor(1.0), draw(0, N, K), draw(0, N, 7), "soft", 0.5, 1.0)
