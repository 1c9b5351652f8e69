"""Maps along an axis whose size may vary: no layer can be built that counts on that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import Net, fold, fold_and_compare, noise, randomised

ALONG_A_FREE_AXIS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "class token dropped, then scaled": ((2, 5, 6), lambda x: x[:, 1:] * 0.5),
    "two crops of the tokens": ((2, 5, 6), lambda x: x.relu()[:, 1:][:, 1:]),
    "padded waveform, then scaled": ((2, 40), lambda x: F.pad(x, (3, 3)) * 0.5),
    "waveform padded twice": ((2, 40), lambda x: F.pad(F.pad(x.relu(), (3, 0)), (0, 2)).sigmoid()),
    "padded grey images, then scaled": ((2, 6, 7), lambda x: F.pad(x, (1, 1, 1, 1)) * 0.5),
    "pooled grey images, then scaled": ((2, 6, 8), lambda x: F.avg_pool2d(x, 2) * 0.5),
    "channels padded, then scaled": ((2, 3, 5, 5), lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)) * 0.5),
    "batch doubled": ((2, 3, 5, 5), lambda x: torch.cat([x, x * 2], 0)),
    "rows doubled": ((2, 3, 5, 5), lambda x: torch.cat([x, -x], 2)),
    "columns doubled": ((2, 3, 5, 5), lambda x: torch.cat([x.relu(), x.relu() * 3], -1)),
    "sequence doubled": ((2, 5, 6), lambda x: torch.cat([x, x * 3], 1)),
}


@pytest.mark.parametrize("name", ALONG_A_FREE_AXIS)
def test_a_fold_holds_at_every_size_that_the_capture_left_free(name: str) -> None:
    shape, forward = ALONG_A_FREE_AXIS[name]
    done = fold(Net(lambda self, x: forward(x)), noise(*shape), dynamic="auto")
    assert 0 in done.program.axes[0], "the batch is free here"
    done.compare(noise(*shape))
    other = [size + 1 + axis if axis in done.program.axes[0] else size for axis, size in enumerate(shape)]
    done.compare(noise(*other))


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 8)])
def test_a_scale_along_another_axis_than_the_channels_is_not_called_a_failure(shape: tuple[int, ...]) -> None:
    """(H, 1) constants on (N, C, H, W): either folded or refused for a reason in the network's own terms."""
    along_h = [noise(8, *(1,) * (len(shape) - 3), seed=s) for s in (1, 2)]
    net = Net(lambda self, x: x.relu() * self.a * self.b, a=along_h[0], b=along_h[1])
    done = fold(net, noise(*shape))
    done.compare(noise(*shape))
    assert "does not run" not in done.reasons()


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: F.pad(F.pad(x.relu(), (1, 0)), (0, 2)).sigmoid(),
        lambda x: x.relu()[:, :, 1:-1][:, :, :, 1:-1].sigmoid(),
        lambda x: x.relu()[:, :, ::2, ::2].sigmoid(),
    ],
    ids=["two pads", "two crops", "two strided slices"],
)
def test_pads_and_crops_alone_never_become_a_convolution(forward: Callable[[Tensor], Tensor]) -> None:
    """A depthwise convolution by 1 costs more than the copy, or the view, that it replaces."""
    x = noise(2, 3, 8, 8)
    done = fold(Net(lambda self, x: forward(x)), x)
    done.compare(x)
    assert done.count(x) == (0, 0, 0)


def test_planning_ends_where_an_operator_is_needed_with_and_without_what_lies_above_it() -> None:
    """The first reshape is an output, and the second norm's chain reaches past it."""

    def forward(s: Any, x: Tensor) -> Any:
        first = s.a(x.flatten(0, 1)).reshape(x.shape)
        second = s.b(first.flatten(0, 1)).reshape(x.shape)
        return s.linear(second), first

    net = Net(forward, a=nn.BatchNorm1d(4), b=nn.BatchNorm1d(4), linear=nn.Linear(4, 4))
    fold_and_compare(randomised(net), noise(2, 27, 4))


def test_a_lifted_map_that_would_be_put_back_as_it_was_stays_below() -> None:
    """The map above the reshapes exists inside folds only, so it cannot be the one that stays."""

    def forward(s: Any, x: Tensor) -> Any:
        first = s.linear(x) / s.scale
        second = s.a(first.flatten(0, 1)).reshape(first.shape)
        third = s.b(second.flatten(0, 1)).reshape(first.shape)
        return third.permute(0, 2, 1), first

    net = Net(forward, scale=noise(3) + 3, linear=nn.Linear(4, 3), a=nn.BatchNorm1d(3), b=nn.BatchNorm1d(3))
    fold_and_compare(randomised(net), noise(2, 5, 4))
