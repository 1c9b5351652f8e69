"""The stand-in for torch's float64 convolutions of small maps, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reparamkit.engine import unrolled
from reparamkit.engine.unrolled import convolve

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@settings(deadline=None)
@given(st.data())
def test_equals_torch(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    per_axis = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * dims))  # noqa: E731
    window, stride, padding, dilation = per_axis(1, 4), per_axis(1, 3), per_axis(0, 3), per_axis(1, 2)
    sizes, groups = per_axis(1, 7), data.draw(st.integers(1, 5))
    depthwise = data.draw(st.booleans())
    inputs, outputs = (1, 1) if depthwise else (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    x = torch.randn(data.draw(st.integers(1, 3)), groups * inputs, *sizes, dtype=torch.float64)
    if data.draw(st.booleans()):
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    weight = torch.randn(groups * outputs, inputs, *window, dtype=torch.float64)
    bias = torch.randn(groups * outputs, dtype=torch.float64) if data.draw(st.booleans()) else None
    attributes = (stride, padding, dilation, groups)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(unrolled, "_SMALL", 0)
        patch.setattr(unrolled, "_AT_ONCE", data.draw(st.sampled_from([1, 100, 1 << 18])))
        try:
            expected = CONVOLUTIONS[dims](x, weight, bias, *attributes)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="does not fit"):
                convolve(x, weight, bias, *attributes)
            return
        found = convolve(x, weight, bias, *attributes)
    if found is None:
        assert expected.numel() // expected.shape[1] > 64
        return
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_one_number_stands_for_all_axes() -> None:
    x, weight = torch.randn(1, 3, 5, 6).double(), torch.randn(3, 1, 3, 3).double()
    torch.testing.assert_close(
        convolve(x, weight, None, [2], [1], [1], 3), F.conv2d(x, weight, None, 2, 1, 1, 3)
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_large_maps_are_left_to_torch(groups: int) -> None:
    x, weight = torch.randn(1, 128, 65), torch.randn(128, 128 // groups, 1)
    assert convolve(x, weight, None, [1], [0], [1], groups) is None


def test_few_weights_are_left_to_torch() -> None:
    assert convolve(torch.randn(1, 4, 5), torch.randn(4, 4, 3), None, [1], [0], [1], 1) is None


@pytest.mark.parametrize("shape", [(4, 5), (1, 5, 5)], ids=["no batch", "other channels"])
def test_other_inputs_are_left_to_torch(shape: tuple[int, ...]) -> None:
    assert convolve(torch.randn(*shape), torch.randn(4, 1, 3), None, [1], [0], [1], 4) is None


@torch.no_grad()
def test_large_maps_of_many_groups_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 64, 17, 16).double(), torch.randn(64, 1, 31, 31).double()
    attributes = [1], [15], [1], 64
    assert convolve(x, weight, None, *attributes) is None
    monkeypatch.setattr(unrolled, "_MUCH", 1 << 10)
    done = convolve(x, weight, None, *attributes)
    assert done is not None
    torch.testing.assert_close(done, F.conv2d(x, weight, None, 1, 15, 1, 64))
