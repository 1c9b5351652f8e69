"""Random convolutions: each kind's block is the same function, exactly, and folds into one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.training.expand.kinds import KINDS
from tests.nets import noise
from tests.training.expand.nets import error64

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
CLASSES: tuple[Any, ...] = nn.Conv1d, nn.Conv2d, nn.Conv3d
_UNHURRIED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@dataclass
class Case:
    conv: nn.Module
    x: Tensor
    roomy: bool  # every tap meets more than the border

    def __repr__(self) -> str:
        return f"{self.conv} on {list(self.x.shape)}"


@st.composite
def cases(draw: Any) -> Case:
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    largest = {1: 7, 2: 5, 3: 3}[axes]
    kernel = tuple(draw(st.integers(1, largest)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    padding = draw(st.sampled_from(["same", "valid", "half", "any"]))
    stride = tuple(1 if padding == "same" else draw(st.integers(1, 3)) for _ in range(axes))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inputs = draw(st.sampled_from([4, 8]))
    outputs = draw(st.sampled_from([inputs, inputs, 4, 8]))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    pads: Any = padding
    if padding == "half":
        pads = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    if padding == "any":
        pads = tuple(draw(st.integers(0, 4)) for _ in range(axes))
    options = {"padding_mode": mode, "bias": draw(st.booleans()), "groups": groups}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    conv = CLASSES[axes - 1](inputs, outputs, kernel, stride, pads, dilation, **options)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    sides = [draw(st.integers(1, 9)) + d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if axes == 3:
        sides = [min(side, 7) for side in sides]
    x = noise(3, inputs, *sides, seed=1, dtype=torch.float32)
    try:
        output = conv(x)
    except RuntimeError:  # more reflected than there is
        assume(False)
        raise
    assume(output[0, 0].numel() > 1)
    assume(output.std() > 0)  # else it has read nothing but the border
    roomy = all(side - d * (k - 1) > 3 for side, k, d in zip(x.shape[2:], kernel, dilation, strict=True))
    return Case(conv.eval(), x, roomy)


def not_expanded(case: Case, kind: str, branches: int | None) -> str:
    """Why a kind has no block for it; empty if it has one."""
    conv: Any = case.conv
    long = sum(side > 1 for side in conv.kernel_size)
    if kind != "mobileone":
        return "needs a kernel larger" if long < (2 if kind == "acb" else 1) else ""
    skips = conv.in_channels == conv.out_channels and max(conv.stride) == 1
    return "" if long or skips or branches != 1 else "one branch would stand for it"


def assert_expands_and_folds(case: Case, kind: str, branches: int | None, *, fold: bool) -> None:
    reason = not_expanded(case, kind, branches)
    if reason:
        with pytest.raises(rk.NothingExpanded, match=reason):
            rk.expand(case.conv, case.x, kind, branches)
        return
    expanded = rk.expand(case.conv, case.x, kind, branches)
    assert error64(case.conv, expanded, case.x) < 1e-13
    training = expanded.train()(case.x)
    plain = case.conv(case.x)
    assert (training - plain).abs().max() < 5e-3 * plain.abs().max()
    training.square().sum().backward()
    if case.roomy:
        assert all(p.grad is not None and p.grad.any() for p in expanded.parameters())
    if fold:
        expanded.eval()
        folded = rk.fold(expanded, case.x, dynamic=False)
        operators = {name: n for name, n in folded.after.items() if name not in ("pad", "constant_pad_nd")}
        assert operators == {f"conv{case.x.ndim - 2}d": 1}
        assert max(fold.error for fold in folded.folds) < 1e-10


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=_UNHURRIED)
@given(case=cases(), branches=st.sampled_from([None, None, 1, 2, 5]))
def test_any_convolution_expands_exactly(kind: str, case: Case, branches: int | None) -> None:
    assert_expands_and_folds(case, kind, branches, fold=False)


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, derandomize=True, deadline=None, database=None, suppress_health_check=_UNHURRIED)
@given(case=cases(), branches=st.sampled_from([None, None, 1, 2]))
def test_any_expanded_convolution_folds_into_one(kind: str, case: Case, branches: int | None) -> None:
    assert_expands_and_folds(case, kind, branches, fold=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=_UNHURRIED)
@given(case=cases(), branches=st.sampled_from([None, None, 1, 2, 5]))
def test_many_convolutions(kind: str, case: Case, branches: int | None) -> None:
    assert_expands_and_folds(case, kind, branches, fold=True)
