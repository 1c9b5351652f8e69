"""The float64 run, what it survives, and what is done without it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reparamkit.compare.check import check
from reparamkit.compare.float64.grouped import grouped_convolution
from reparamkit.compare.float64.oracle import Twin, run_float64
from reparamkit.compare.float64.reference import Reference
from tests.compare.nets import Lambda, folded, net

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _hard_coded(self: Lambda, x: torch.Tensor) -> torch.Tensor:
    y = self.conv(x)
    y = y + torch.zeros(4, 1, 1, dtype=torch.float32)
    weights = torch.zeros(4)
    weights[2] = 3.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.conv(y[:, :3])
    return F.linear(y.float().mean((2, 3)), torch.ones(5, 4)) + weights.sum()


def test_a_dtype_written_into_the_code_does_not_stop_the_oracle() -> None:
    network = Lambda(_hard_coded)
    value, why = run_float64(network, (IMAGE,), {})
    assert why == ""
    assert value is not None
    assert value.dtype is torch.float64
    double = copy.deepcopy(network.conv).double()
    exact = double(double(IMAGE.double())[:, :3]).mean((2, 3)) @ torch.ones(4, 5).double() + 3
    assert torch.allclose(value, exact, rtol=1e-12, atol=1e-12)


def test_the_module_is_not_touched_and_the_copy_not_kept() -> None:
    network = net().train()
    before = copy.deepcopy(network.state_dict())
    value, _ = run_float64(network, (IMAGE,), {})
    assert value is not None
    assert network.training
    assert all(torch.equal(before[key], now) for key, now in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_programs_of_torch_export_and_torchscript_run_in_float64() -> None:
    network = net()
    exact, _ = run_float64(network, (IMAGE,), {})
    program = torch.export.export(network, (IMAGE,)).module()
    for other in (program, torch.jit.trace(network, IMAGE)):
        value, why = run_float64(other, (IMAGE,), {})
        assert why == ""
        assert value is not None
        assert exact is not None
        assert torch.allclose(value, exact, rtol=1e-12, atol=1e-12)


def _insists_on_float32(self: Lambda, x: torch.Tensor) -> torch.Tensor:
    if x.dtype is not torch.float32:
        raise TypeError("float32 only")
    y = self.conv(x)
    return self.conv(y[:, :3])


def test_without_float64_the_own_run_is_the_oracle_and_the_verdict_says_so() -> None:
    network = Lambda(_insists_on_float32)
    value, why = run_float64(network, (IMAGE,), {})
    assert value is None
    assert why == "TypeError: float32 only"
    verdict = check(network, copy.deepcopy(network), IMAGE)
    assert verdict.passed
    assert verdict.oracle == "float32"
    assert verdict.e0 is None
    assert all(entry.e0 is None for entry in verdict.outputs)
    assert verdict.floor < verdict.budget < 1e-4
    assert "does not run in float64 (TypeError: float32 only)" in verdict.notes[0]
    assert "its own run" in verdict.summary()


def test_without_float64_other_rounding_passes_and_a_mistake_does_not() -> None:
    def reordered(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        """The same conv, one input channel at a time: other rounding, same function."""
        for _ in range(2):
            weight = self.conv.weight
            parts = [F.conv2d(x[:, c : c + 1], weight[:, c : c + 1], padding=1) for c in (2, 0, 1)]
            y = parts[0] + parts[1] + parts[2] + self.conv.get_parameter("bias")[:, None, None]
            x = y[:, :3]
        return y

    reference, candidate = Lambda(_insists_on_float32), Lambda(reordered)
    verdict = check(reference, candidate, IMAGE)
    assert verdict.passed
    assert verdict.e1 > 0
    with torch.no_grad():
        candidate.conv.weight[1, 1, 1, 1] *= 1.01
    assert not check(reference, candidate, IMAGE).passed


def test_the_estimated_noise_is_of_the_size_of_the_real_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    from reparamkit.compare.float64.record import Recorder

    network = net()
    real = Reference(network, (IMAGE,))
    monkeypatch.setattr(Recorder, "_choose_noise", lambda self, probe, own: self._estimated_noise())
    estimated = Reference(network, (IMAGE,))
    for left, right in zip(real.records, estimated.records, strict=True):
        ratio = right.truths[0].noise / left.truths[0].noise
        assert 0.3 < ratio < 30
    assert estimated.judge(folded(network)).passed


@pytest.mark.parametrize(
    ("groups", "window", "stride", "padding", "dilation", "size"),
    [
        (8, (3, 3), (2, 2), (1, 1), (1, 1), (9, 12)),
        (4, (3, 2), (1, 2), (0, 1), (2, 1), (9, 12)),
        (2, (3,), (1,), (1,), (1,), (9,)),
        (8, (3, 2, 1), (1, 2, 1), (1, 0, 1), (1, 2, 1), (9, 8, 7)),
        (4, (1, 1), (1,), (0,), (1,), (5, 4)),
    ],
)
def test_grouped_convolution_is_torch_s(
    groups: int,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    size: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, *size, generator=generator, dtype=torch.float64)
    kernel = torch.randn(16, 8 // groups, *window, generator=generator, dtype=torch.float64)
    bias = torch.randn(16, generator=generator, dtype=torch.float64)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(window)]
    expected = convolve(x, kernel, bias, stride, padding, dilation, groups)
    found = grouped_convolution(x, kernel, bias, stride, padding, dilation, groups)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_weights_of_a_copy_go_with_it_and_those_of_the_original_stay() -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.weight, x * self.weight

    module = Self()
    before = module.weight.detach().clone()
    (weight, product), _ = run_float64(module, (torch.ones(4),), {})  # type: ignore[misc]
    torch.testing.assert_close(weight, before.double())
    torch.testing.assert_close(product, before.double())
    torch.testing.assert_close(module.weight.detach(), before)
    twin = Twin(module, torch.float64)
    copied = twin.module
    del twin
    assert copied.get_parameter("weight").numel() == 0
    assert module.weight.numel() == 4
    shared = Twin(module, None, share=True)
    assert shared.module.weight is module.weight
    del shared
    assert module.weight.numel() == 4
