"""Learning rate and weight decay against their formulas, timm's scheduler, and a run that goes on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from reparamkit.training.schedules import CosineWeightDecay, cosine, learning_rate, warmup_cosine
from tests.timm_import import import_timm

PEAK, START, END, WARMUP, STEPS = 0.3, 0.01, 0.002, 7, 40


def optimizer(*rates: float) -> SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return SGD(groups, PEAK)


def rates_of(steps: int, *rates: float) -> list[list[float]]:
    sgd = optimizer(*rates)
    schedule = learning_rate(sgd, peak=PEAK, start=START, end=END, warmup=WARMUP, steps=STEPS)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in sgd.param_groups])
        sgd.step()
        schedule.step()
    return seen


def test_the_learning_rate_is_a_line_and_then_half_a_cosine() -> None:
    for step, (rate,) in enumerate(rates_of(STEPS + 5, PEAK)):
        if step < WARMUP:
            expected = START + (PEAK - START) * step / WARMUP
        else:
            angle = math.pi * min(step - WARMUP, STEPS - WARMUP) / (STEPS - WARMUP)
            expected = END + (PEAK - END) / 2 * (1 + math.cos(angle))
        assert rate == pytest.approx(expected, rel=1e-13)


def test_the_learning_rate_is_that_of_timms_scheduler() -> None:
    import_timm()
    from timm.scheduler.cosine_lr import CosineLRScheduler

    sgd = optimizer(PEAK)
    theirs = CosineLRScheduler(
        sgd,
        t_initial=STEPS - WARMUP,
        lr_min=END,
        warmup_t=WARMUP,
        warmup_lr_init=START,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    for step, (rate,) in enumerate(rates_of(STEPS, PEAK)):
        theirs.step_update(step)
        assert rate == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-12)


def test_slower_groups_stay_slower_by_the_same_factor() -> None:
    for fast, slow in rates_of(STEPS, PEAK, PEAK * 0.3):
        assert slow == pytest.approx(0.3 * fast, rel=1e-12)


def test_without_a_warm_up_the_peak_comes_first() -> None:
    assert warmup_cosine(PEAK, START, END, 0, 0, STEPS) == PEAK
    assert cosine(PEAK, END, STEPS, STEPS) == pytest.approx(END, rel=1e-12)


def decaying() -> AdamW:
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "weight_decay": value} for value in (0.05, 0.0, 0.05)
    ]
    return AdamW(groups, 1e-3)


def test_every_group_that_decays_follows_the_cosine_and_no_other() -> None:
    adamw = decaying()
    schedule = CosineWeightDecay(adamw, 0.05, 0.4, STEPS)
    for step in range(STEPS + 3):
        share = min(step, STEPS) / STEPS
        expected = 0.4 + (0.05 - 0.4) / 2 * (1 + math.cos(math.pi * share))
        assert [g["weight_decay"] for g in adamw.param_groups] == [
            pytest.approx(expected, rel=1e-13),
            0.0,
            pytest.approx(expected, rel=1e-13),
        ]
        schedule.step()


def test_the_weight_decay_of_an_update_is_what_the_optimizer_applies() -> None:
    """With zero gradient AdamW shrinks a weight by 1 − lr · decay."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    adamw = AdamW([{"params": [weight], "weight_decay": 0.1}], 0.01)
    schedule = CosineWeightDecay(adamw, 0.1, 0.5, 10)
    expected = 1.0
    for step in range(10):
        weight.grad = torch.zeros_like(weight)
        adamw.step()
        expected *= 1 - 0.01 * cosine(0.1, 0.5, step, 10)
        schedule.step()
    assert weight.item() == pytest.approx(expected, rel=1e-12)


def test_the_position_is_saved_and_restored() -> None:
    adamw = decaying()
    whole = CosineWeightDecay(adamw, 0.05, 0.4, STEPS)
    for _ in range(13):
        whole.step()
    again = decaying()
    resumed = CosineWeightDecay(again, 0.05, 0.4, STEPS)
    again.load_state_dict(adamw.state_dict())  # which gives the optimizer other groups
    resumed.load_state_dict(whole.state_dict())
    assert [g["weight_decay"] for g in again.param_groups] == [g["weight_decay"] for g in adamw.param_groups]
    for _ in range(5):
        whole.step()
        resumed.step()
    assert resumed.value == whole.value == again.param_groups[0]["weight_decay"]
