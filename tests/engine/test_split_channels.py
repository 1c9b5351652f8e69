"""Maps behind a cut, or behind a reshape that splits the channels, in the layer above."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.engine.laws.left import Parts, left
from tests.nets import Net, noise


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_slices_are_pieces(dynamic: Any) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.conv(x)
        return s.one(y[:, :8]).sigmoid() * s.two(y[:, 8:]).tanh()

    parts = {"conv": nn.Conv2d(3, 16, 3), "one": nn.BatchNorm2d(8), "two": nn.BatchNorm2d(8)}
    assert left(forward, noise(2, 3, 8, 9), dynamic, **parts) == {
        "conv2d": 1,
        "sigmoid": 1,
        "tanh": 1,
        "mul": 1,
    }


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_norm_of_channels_that_a_reshape_splits(dynamic: Any) -> None:
    """RepMLP: each of the norm's channels is twenty of the convolution's."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return s.norm(s.conv(x).reshape(-1, 2, 4, 5)).relu()

    parts = {"conv": nn.Conv2d(40, 40, 1, groups=2), "norm": nn.BatchNorm2d(2)}
    assert left(forward, noise(3, 40, 1, 1), dynamic, **parts) == {"conv2d": 1, "relu": 1}


def test_a_map_that_differs_within_a_channel_stays() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return (s.conv(x).reshape(-1, 2, 4, 5) * s.along).relu()

    parts: Parts = {"conv": nn.Conv2d(8, 8, (1, 5), padding=(0, 2)), "along": noise(5)}
    assert left(forward, noise(3, 8, 1, 5), **parts)["mul"] == 1


def test_no_norm_is_computed_twice() -> None:
    """SegFormer: one reader takes the norm's weights in, the other has a padded convolution."""

    def forward(s: Any, x: Tensor) -> Any:
        y = s.norm(x.flatten(1, 2)).reshape(x.shape).permute(0, 3, 1, 2).contiguous()
        return s.linear(y.flatten(2).transpose(1, 2)), s.conv(y)

    parts = {
        "norm": nn.LayerNorm(6),
        "linear": nn.Linear(6, 5),
        "conv": nn.Conv2d(6, 5, 3, stride=2, padding=1),
    }
    kept = left(forward, noise(2, 4, 5, 6), **parts)
    assert kept.get("layer_norm") == 1


def test_what_a_channel_of_one_reads_is_no_piece() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        y, z = s.one(x) * -1.0, s.two(x) + -1.0
        return torch.add(y, z), s.one(x)

    parts = {"one": nn.Conv1d(2, 1, 3, padding=1), "two": nn.Conv1d(2, 1, 3, padding=1)}
    assert left(forward, noise(2, 2, 4), **parts)["conv1d"] <= 3


def test_why_a_map_stays_behind_a_cut() -> None:
    def forward(s: Any, x: Tensor) -> Any:
        piece, other = s.conv(x).chunk(2, 1)
        return (piece * 2.0).relu(), piece.exp(), other

    net = Net(forward, conv=nn.Conv2d(3, 8, 1)).double().eval()
    outcome = fold_program(capture(net, (noise(2, 3, 4, 5),), dynamic=False))
    (stays,) = (str(refusal) for refusal in outcome.refusals if "mul" in refusal.operator)
    assert "it cannot become part of 'conv': another operator reads its channels" in stays
