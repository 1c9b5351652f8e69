"""The outline of a network: its calls as plain data, before and after a fold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import reparamkit as rk
from tests.compare.nets import Lambda


class Block(nn.Module):
    """Two branches and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Conv2d(8, 8, 9, padding=4, groups=2, bias=False)
        self.small = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.norm(self.large(x) + self.small(x)))
        return self.head(y.mean((2, 3)))


def test_calls_before_and_after() -> None:
    before, after = rk.fold(Block().eval(), torch.randn(2, 8, 12, 10)).outlines
    calls = {call.name: call for call in before.calls}
    large = calls["conv2d"]
    assert (large.module, large.window, large.groups, large.channels) == ("large", (9, 9), 2, (8, 8))
    assert (large.shape, large.reads, large.stride) == ((2, 8, 12, 10), ("x",), (1, 1))
    assert len(large.kernel) == len(large.kernel[0]) == 9
    assert not calls["conv2d_1"].kernel, "small, and not per channel"
    assert calls["add"].reads == ("conv2d", "conv2d_1")
    assert calls["output"].reads == (calls["linear"].name,)
    assert [call.operator for call in after.calls] == ["input", "conv2d", "relu", "mean", "linear", "output"]
    (layer,) = (call for call in after.calls if call.operator == "conv2d")
    assert layer.layer == layer.module
    assert (layer.window, layer.shape) == ((9, 9), (2, 8, 12, 10))
    assert before.parameters == sum(p.numel() for p in Block().parameters())
    assert after.parameters == 8 * 4 * 81 + 8 + 8 * 5 + 5


def test_a_fold_names_what_was_there() -> None:
    folded = rk.fold(Block().eval(), torch.randn(2, 8, 12, 10))
    (fold,) = folded.folds
    captured = {call.name: call.operator for call in folded.outlines[0].calls}
    assert [captured[name] for name in fold.nodes] == ["conv2d", "conv2d", "add", "batch_norm"]
    assert list(fold.layers) == [call.layer for call in folded.outlines[1].calls if call.layer]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda self, x: self.conv(x), (2, 3, 9, 7)),
        (lambda self, x: F.conv_transpose2d(x, torch.ones(3, 4, 3, 3), stride=2), (1, 3, 5, 6)),
        (lambda self, x: F.conv1d(x.flatten(2), torch.ones(6, 1, 5), groups=3), (2, 3, 4, 5)),
        (lambda self, x: x @ x.transpose(2, 3), (2, 3, 9, 7)),
        (lambda self, x: F.linear(x, torch.ones(5, 7)), (2, 3, 9, 7)),
    ],
)
def test_work_is_what_torch_counts(network: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    x, model = torch.randn(shape), Lambda(network)
    before, _ = rk.inspect(model, x, dynamic=False).outlines
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * before.macs > 0


@pytest.mark.parametrize("dynamic", ["auto", "batch", False])
def test_sizes_are_those_of_the_example_whatever_is_free(dynamic: object) -> None:
    before, after = rk.inspect(Block().eval(), torch.randn(1, 8, 12, 10), dynamic=dynamic).outlines
    fixed = rk.inspect(Block().eval(), torch.randn(1, 8, 12, 10), dynamic=False).outlines
    assert [call.shape for call in before.calls] == [call.shape for call in fixed[0].calls]
    assert [call.shape for call in after.calls] == [call.shape for call in fixed[1].calls]
    assert (before.macs, after.macs) == tuple(outline.macs for outline in fixed)
    assert after.macs == 8 * 12 * 10 * 4 * 81 + 8 * 5


def test_attention_is_its_two_products() -> None:
    x = torch.randn(2, 3, 9, 7)
    model = Lambda(lambda self, x: F.scaled_dot_product_attention(x, x[:, :, :4], x[:, :, :4]))
    before, _ = rk.inspect(model, x, dynamic=False).outlines
    assert before.macs == 2 * 3 * 9 * 4 * (7 + 7)


def test_parts_are_named_by_their_paths() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.block(x)
            return y * float(y.sum() > 0)

    folded = rk.inspect(Whole().eval(), torch.randn(1, 8, 6, 6))
    before, after = folded.outlines
    (conv,) = (call for call in before.calls if call.operator == "conv2d")
    assert conv.module == "block.0"
    assert set(folded.folds[0].nodes) <= {call.name for call in before.calls}
    assert all(call.name.startswith("block:") for call in (*before.calls, *after.calls))
    assert {call.layer for call in after.calls if call.layer} == set(folded.folds[0].layers)
