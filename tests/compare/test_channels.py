"""A budget for every channel: what is wrong in a small one shows beside a large one, rounding does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import reparamkit as rk
from reparamkit import api
from reparamkit.compare.check import check
from reparamkit.compare.compare import compare
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.probes import thorough_probes
from reparamkit.compare.inputs.sizes import FreeSizes
from reparamkit.compare.noise import Noise, noise_between, peaks
from reparamkit.compare.saved import load_outputs, save_outputs
from reparamkit.lower.exported import export_program
from tests.compare.comparing import outcome
from tests.compare.nets import Block, Lambda, folded, net, randomised
from tests.lower.saving import save_program as save

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
SCALES = torch.tensor([1e7, 1.0, 1.0, 1.0])

Layout = Callable[[torch.Tensor], object]
LAYOUTS: dict[str, Layout] = {
    "maps": lambda y: y,
    "channels last": lambda y: y.permute(0, 2, 3, 1),
    "tokens": lambda y: y.flatten(2).transpose(1, 2),
    "tokens, channels first": lambda y: y.flatten(2),
    "vectors": lambda y: y.mean((2, 3)),
    "one sample's maps": lambda y: y[0],
    "one vector": lambda y: y.mean((0, 2, 3)),
    "frames": lambda y: y[:, None],
    "beside another": lambda y: {"large": y * 1e6, "scaled": y},
}


def _scaled(layout: Layout, change: Callable[[torch.Tensor], torch.Tensor] = lambda y: y) -> Lambda:
    def forward(self: Lambda, x: torch.Tensor) -> object:
        y: torch.Tensor = self.conv(x)
        return layout(change(y * SCALES.view(1, 4, 1, 1)))

    return Lambda(forward)


def _with(channel: int, factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    factors = torch.ones(1, 4, 1, 1)
    factors[:, channel] = factor
    return lambda y: y * factors


@pytest.mark.diagonal(5)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("factor", [0.0, 1.01])
def test_a_small_channel_beside_a_large_one(layout: Layout, factor: float) -> None:
    right, wrong = _scaled(layout), _scaled(layout, _with(2, factor))
    assert check(right, copy.deepcopy(right), IMAGE).passed
    verdict = check(right, wrong, IMAGE)
    assert verdict.differs
    assert "of the scale of channel 2 along axis" in verdict.reason
    worst = verdict.worst()
    assert worst is not None
    assert worst.channel is not None
    assert worst.index[worst.channel[0]] == worst.channel[1] == 2
    assert worst.e1 == pytest.approx(abs(factor - 1), rel=0.9)
    assert worst.scale < 100
    assert outcome(right, wrong, inputs=IMAGE, where=False)[0] == "different"


@pytest.mark.parametrize("ulps", [-3, 4])
def test_a_channel_off_by_a_few_ulp_is_right(ulps: int) -> None:
    off = 1 + ulps * torch.finfo(torch.float32).eps
    for layout in LAYOUTS.values():
        assert check(_scaled(layout), _scaled(layout, _with(2, off)), IMAGE).passed


def test_all_small_channels_of_zero() -> None:
    """Three channels of nothing beside one of 1e7."""

    def zeroed(y: torch.Tensor) -> torch.Tensor:
        return y * torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1, 1)

    for layout in LAYOUTS.values():
        assert check(_scaled(layout), _scaled(layout, zeroed), IMAGE).differs


class _Scaled(nn.Module):
    """A foldable block, and after it a scale per channel that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Block(4)
        randomised(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(self.stem(x))
        return y.sin() * SCALES.view(1, 4, 1, 1)


def test_the_fold_s_own_verdict_and_files_see_it_too(tmp_path: Path) -> None:
    original = _Scaled()
    result = rk.fold(original, IMAGE, dynamic=False)
    assert result.equivalence is not None
    assert result.equivalence.passed
    result.save(tmp_path / "right.onnx", tmp_path / "right.pt2")
    with torch.no_grad():
        conv = [part for part in result.module.modules() if isinstance(part, nn.Conv2d)][-1]
        assert conv.bias is not None
        conv.bias[1] += 0.01
    assert api._verdict_on(result.network).differs
    for name in ("wrong.onnx", "wrong.pt2"):
        program = export_program(result.module, (IMAGE,), {})
        with pytest.raises(rk.NotEquivalent, match="channel 1 along axis 1"):
            save(program, tmp_path / name, Reference(original, (IMAGE,)))
        assert not (tmp_path / name).exists()


def test_files_of_right_networks_pass(tmp_path: Path) -> None:
    original = _Scaled()
    result = rk.fold(original, IMAGE, dynamic=False)
    result.save(tmp_path / "n.onnx")
    assert compare(original, tmp_path / "n.onnx", inputs=IMAGE).comparison.passed
    assert compare(tmp_path / "n.onnx", result.module, inputs=IMAGE).comparison.passed


CANCELLING: dict[str, Callable[[Lambda, torch.Tensor], torch.Tensor]] = {
    # A channel that is what is left of larger terms is as noisy as they are, and may show nothing of it.
    "difference": lambda self, x: self.conv(x) + 1000.0 - 1000.0,
    "dead but for a bias": lambda self, x: self.conv(x) * torch.tensor([1.0, 0, 1, 1]).view(1, 4, 1, 1) + 0.3,
    "nothing at all": lambda self, x: self.conv(x) * torch.tensor([1.0, 0, 1, 1]).view(1, 4, 1, 1),
    "centred": lambda self, x: (self.conv(x) + 30.0) - (self.conv(x) + 30.0).mean((2, 3), keepdim=True),
}


@pytest.mark.parametrize("function", CANCELLING.values(), ids=CANCELLING.keys())
def test_cancellation_is_no_mistake(function: Callable[[Lambda, torch.Tensor], torch.Tensor]) -> None:
    """Computed in float64 and rounded once, as a fold is, it is right to the last bit."""
    original = Lambda(function)

    class Exact(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(copy.deepcopy(original).double(), x.double()).float()

    assert outcome(original, Exact().eval(), inputs=IMAGE)[0] == "same"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 16, 16)])
def test_few_elements_per_channel_raise_no_alarm(seed: int, shape: tuple[int, ...]) -> None:
    """Ten classes of one sample: scale and noise of a class are of a handful of numbers."""
    original = net(seed)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    assert check(original, folded(original), image, seed=seed).passed


def test_a_channel_that_drowns_in_its_own_noise_is_not_judged() -> None:
    def noisy(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return torch.cat([y[:, :1] * 1e-9 + 1e3 - 1e3, y[:, 1:]], 1)

    reference = Lambda(noisy)
    records = Reference(reference, (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))
    channels = records.budgets().channels(0, "normal")
    along = next(each for each in channels if each.axis == 1)
    assert along.judged.tolist() == [False, True, True, True]
    assert records.judge(copy.deepcopy(reference)).passed


def test_axes_whose_length_changes_hold_no_channels() -> None:
    axes = {0: {0: "batch", 2: "height", 3: "width"}}
    reference = Reference(Lambda(lambda self, x: self.conv(x)), (IMAGE,), free=FreeSizes(axes))
    assert [each.axis for each in reference.budgets().channels(0, "normal")] == [1]
    fixed = Reference(Lambda(lambda self, x: self.conv(x)), (IMAGE,))
    assert [each.axis for each in fixed.budgets().channels(0, "normal")] == [0, 1, 2, 3]


def test_complex_outputs_have_no_axis_of_parts() -> None:
    reference = Reference(Lambda(lambda self, x: torch.fft.fft2(self.conv(x))), (IMAGE,))
    assert [each.axis for each in reference.budgets().channels(0, "normal")] == [0, 1, 2, 3]
    assert reference.judge(Lambda(lambda self, x: torch.fft.fft2(self.conv(x)))).passed


def test_saved_outputs_know_their_channels(tmp_path: Path) -> None:
    right, wrong = _scaled(LAYOUTS["maps"]), _scaled(LAYOUTS["maps"], _with(3, 0.0))
    reference = Reference(right, (IMAGE,))
    path = tmp_path / "out.npz"
    save_outputs(path, reference, "right", ["x"], None)
    held = load_outputs(path).recorded([record.probe for record in reference.records])
    assert held.judge(copy.deepcopy(right)).passed
    assert "channel 3" in held.judge(wrong).reason
    # A file of before has no noise along any axis: it is judged as a whole.
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if not name.startswith("noise")}
    np.savez(path, **arrays)
    older = load_outputs(path).recorded([record.probe for record in reference.records])
    assert older.judge(copy.deepcopy(right)).passed


def test_peaks_and_noise() -> None:
    values = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
    rows, columns = peaks(values)
    assert rows is not None
    assert columns is not None
    assert (rows.tolist(), columns.tolist()) == ([5.0, 4.0], [4.0, 5.0, 3.0])
    assert peaks(torch.zeros(2, 0)) == (None, None)
    assert peaks(values[:1])[0] is None
    noise = noise_between(values, values + torch.tensor([0.0, 0.5, float("inf")]))
    assert noise.whole == 0.5
    wider = noise.times(2).joined(Noise(0.7, (torch.tensor([9.0, 0.0]), torch.tensor([0.0, 0.0, 0.0]))))
    assert wider.whole == 1.0
    assert [None if each is None else each.tolist() for each in wider.along] == [[9.0, 1.0], [0.0, 1.0, 0.0]]
    assert noise_between(values, values[:1]).along == ()
    assert isinstance(Reference(net(), (torch.randn(1, 3, 32, 32),)), Recorded)
