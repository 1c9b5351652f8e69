"""x[:, a:b] = S x: pieces of a value beside layers of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.read import FxHost
from tests.engine.laws.left import left
from tests.nets import Net, noise

IMAGE = noise(2, 16, 8, 9)
TOKENS = noise(2, 7, 12)


@pytest.mark.diagonal
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x[:, 8:],
        lambda x: x[:, :8],
        lambda x: x[:, ::2],
        lambda x: x[:, -8:],
        lambda x: x.narrow(1, 4, 8),
        lambda x: x.chunk(2, 1)[1],
        lambda x: x.split([4, 8, 4], 1)[1],
    ],
    ids=["behind", "front", "every second", "from the end", "narrow", "chunk", "split"],
)
def test_a_piece_is_added_to_a_layer_of_the_whole(cut: Callable[[Tensor], Tensor], dynamic: Any) -> None:
    """RMNet's block."""
    parts = {"conv": nn.Conv2d(16, 8, 3, padding=1), "norm": nn.BatchNorm2d(8)}
    kept = left(lambda s, x: (s.conv(x) + s.norm(cut(x))).relu(), IMAGE, dynamic, **parts)
    assert kept == {"conv2d": 1, "relu": 1}


def test_a_layer_beside_the_rest() -> None:
    """PlainUSR's block."""
    conv = nn.Conv2d(16, 1, 1)
    kept = left(lambda s, x: torch.cat([s.conv(x), x[:, 1:]], 1).relu(), IMAGE, conv=conv)
    assert kept == {"conv2d": 1, "relu": 1}


def test_along_the_last_axis() -> None:
    parts = {"linear": nn.Linear(12, 4)}
    kept = left(lambda s, x: (s.linear(x) + x[..., 2:6]).relu(), TOKENS, **parts)
    assert kept == {"linear": 1, "relu": 1}


def test_alone_it_stays_a_cut() -> None:
    assert left(lambda s, x: x.relu()[:, 3:9].exp(), IMAGE) == {"relu": 1, "exp": 1}


def test_positions_are_not_selected() -> None:
    conv = nn.Conv2d(16, 16, 1)
    kept = left(lambda s, x: (s.conv(x[:, :, :3]) + x[:, :, 5:]).relu(), IMAGE, conv=conv)
    assert kept["add"] == 1


def test_a_selection_is_no_map_per_channel_that_passes_a_move() -> None:
    net = Net(lambda s, x: x.relu().chunk(2, 1)[0].permute(0, 2, 3, 1).exp()).eval()
    host = FxHost(capture(net, (IMAGE,), dynamic=False))
    (piece,) = (node for node in host.nodes if node.operator.startswith("aten.chunk"))
    (permuted,) = (node for node in host.nodes if node.operator.startswith("aten.permute"))
    assert len(piece.alternatives) == 1
    assert permuted.alternatives == ()
