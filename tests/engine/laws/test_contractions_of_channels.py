"""Matrices over channels that a reshape has split are one matrix over these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import Outcome, fold_program
from tests.nets import Net, assert_same, noise, randomised

Forward = Callable[[Any, Tensor], Any]


def _in_blocks(s: Any, x: Tensor) -> Tensor:
    rotated = torch.einsum("...rk,rkc->...rc", x.unflatten(-1, (4, 3)), s.blocks)
    return s.linear(rotated.flatten(-2))


def _low_rank_in_blocks(s: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    down = torch.einsum("bnri,rio->bnro", x.view(b, n, 2, 6), s.down)
    mixed = down.view(b, n, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(b, n, 2, 4)
    return s.linear(x) + torch.einsum("bnri,rio->bnro", mixed, s.up).reshape(b, n, -1) * 0.5


def _of_rows(s: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    rows = torch.einsum("gim,inm->gin", x.reshape(-1, c).reshape(-1, 4, 3), s.rows)
    return s.linear(x) + s.narrow(rows.reshape(b, n, -1))


def _summed(s: Any, x: Tensor) -> Tensor:
    return s.linear(x) + x.reshape(*x.shape[:-1], 4, 3).sum(-2) @ s.shared


def _batched(s: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    groups = x.reshape(b * n, 4, 3).transpose(0, 1)
    return s.linear(torch.bmm(groups, s.blocks).transpose(0, 1).reshape(b, n, c))


def _matrices_in_front(s: Any, x: Tensor) -> Tensor:
    split = x.unflatten(-1, (4, 3, 1))
    return s.linear((s.blocks @ split).flatten(-3))


def _twice(s: Any, x: Tensor) -> Tensor:
    once = torch.einsum("bnrk,rkc->bnrc", x.unflatten(-1, (4, 3)), s.blocks).transpose(2, 3).flatten(-2)
    return s.linear(torch.einsum("bnrk,rkc->bnrc", once.unflatten(-1, (4, 3)), s.blocks).flatten(-2))


def _of_an_image(s: Any, x: Tensor) -> Tensor:
    image = x.transpose(1, 2)[..., None]
    b, c, h, w = image.shape
    mixed = torch.einsum("brkhw,rkc->brchw", image.reshape(b, 4, 3, h, w), s.blocks)
    return s.conv(mixed.reshape(b, c, h, w))


def _every_second(s: Any, x: Tensor) -> Tensor:
    half = x.unflatten(-1, (2, 2, 3))[:, :, :, 1]
    return s.six(torch.einsum("bnrk,rkc->bnrc", half, s.blocks[:2]).flatten(-2)) + s.linear(x)


FORWARDS: list[tuple[Forward, dict[str, int]]] = [
    (_in_blocks, {"linear": 1}),
    (_low_rank_in_blocks, {"linear": 1}),
    (_of_rows, {"linear": 1}),
    (_summed, {"linear": 1}),
    (_batched, {"linear": 1}),
    (_matrices_in_front, {"linear": 1}),
    (_twice, {"linear": 1}),
    (_every_second, {"linear": 1}),
]


def _folded(forward: Forward, dynamic: Any) -> tuple[nn.Module, Outcome, dict[str, int]]:
    parts: dict[str, Any] = {
        "blocks": nn.Parameter(noise(4, 3, 3)),
        "down": nn.Parameter(noise(2, 6, 4)),
        "up": nn.Parameter(noise(2, 4, 5)),
        "rows": nn.Parameter(noise(4, 2, 3)),
        "shared": nn.Parameter(noise(3, 10)),
        "linear": nn.Linear(12, 10),
        "narrow": nn.Linear(8, 10, bias=False),
        "six": nn.Linear(6, 10),
        "conv": nn.Conv2d(12, 5, 1),
    }
    net = randomised(Net(forward, **parts)).double()
    outcome = fold_program(capture(net, (noise(2, 5, 12),), dynamic=dynamic))
    assert outcome.undone == ()
    return net, outcome, census(outcome.module.graph, dict(outcome.module.named_modules()))


@pytest.mark.diagonal(4)
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize(("forward", "expected"), FORWARDS)
def test_matrices_over_split_channels_are_one(
    forward: Forward, expected: dict[str, int], dynamic: Any
) -> None:
    net, outcome, left = _folded(forward, dynamic)
    assert left == expected
    regroups = forward is _twice  # twelve channels as 3 · 4 and then as 4 · 3
    assert any(fold.captured_only for fold in outcome.folds) == regroups
    for shape in [(2, 5, 12), (3, 7, 12)] if dynamic else [(2, 5, 12)]:
        assert_same(net(noise(*shape)), outcome.module(noise(*shape)))


def test_channels_of_a_feature_map() -> None:
    net, outcome, left = _folded(_of_an_image, False)
    assert left["conv2d"] == 1
    assert "einsum" not in left
    assert_same(net(noise(2, 5, 12)), outcome.module(noise(2, 5, 12)))


def _along_positions(s: Any, x: Tensor) -> Tensor:
    """Five positions are five groups: what each is multiplied by differs."""
    return s.linear(torch.einsum("bnk,nkc->bnc", x, s.places))


def _across_positions(s: Any, x: Tensor) -> Tensor:
    """The rows of a sample and the groups of its channels lie on one axis."""
    b, n, c = x.shape
    mixed = torch.einsum("bnk,nkc->bnc", x.reshape(b, n * 4, 3), s.twenty)
    return s.linear(mixed.reshape(b, n, c))


def _not_put_back(s: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    mixed = torch.einsum("bnrk,rkc->brnc", x.view(b, n, 4, 3), s.blocks)
    return s.linear(mixed.reshape(b, n, c))


def _over_samples(s: Any, x: Tensor) -> Tensor:
    return s.linear(x) + x.reshape(*x.shape[:-1], 4, 3).sum((0, -2), keepdim=True).squeeze(-2) @ s.shared


def _repeated(s: Any, x: Tensor) -> Tensor:
    """What is spread over an axis counts three times where that is summed."""
    spread = x[..., None, :].expand(*x.shape[:-1], 3, 12)
    return s.linear(x) + s.other(spread.sum(-2))


def _without_the_last_rows(s: Any, x: Tensor) -> Tensor:
    mixed = torch.einsum("bnrk,rkc->bnrc", x.unflatten(-1, (4, 3)).narrow(1, 0, 3), s.blocks)
    return s.linear(mixed.flatten(-2)) + s.other(x)[:, 1:4]


def _shifted(s: Any, x: Tensor) -> Tensor:
    mixed = torch.einsum("bnrk,rkc->bnrc", x.unflatten(-1, (4, 3)) + 1.0, s.blocks)
    return s.linear(mixed.flatten(-2))


@pytest.mark.parametrize(
    "forward",
    [
        _along_positions,
        _across_positions,
        _not_put_back,
        _over_samples,
        _repeated,
        _without_the_last_rows,
        _shifted,
    ],
)
def test_what_is_no_matrix_over_channels_stays(forward: Forward) -> None:
    parts: dict[str, Any] = {
        "blocks": nn.Parameter(noise(4, 3, 3)),
        "places": nn.Parameter(noise(5, 12, 12)),
        "twenty": nn.Parameter(noise(20, 3, 3)),
        "shared": nn.Parameter(noise(3, 10)),
        "linear": nn.Linear(12, 10),
        "other": nn.Linear(12, 10),
    }
    net = randomised(Net(forward, **parts)).double()
    outcome = fold_program(capture(net, (noise(2, 5, 12),), dynamic=False))
    assert outcome.undone == ()
    left = census(outcome.module.graph, dict(outcome.module.named_modules()))
    assert left.get("einsum", 0) + left.get("sum", 0) == 1
    assert_same(net(noise(2, 5, 12)), outcome.module(noise(2, 5, 12)))


def test_blocks_alone_stay_blocks() -> None:
    """One dense matrix is four times the work."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return torch.einsum("...rk,rkc->...rc", x.relu().unflatten(-1, (4, 8)), s.blocks).flatten(-2).tanh()

    net = Net(forward, blocks=nn.Parameter(noise(4, 8, 8))).double()
    outcome = fold_program(capture(net, (noise(2, 50, 32),), dynamic=False))
    left = census(outcome.module.graph, dict(outcome.module.named_modules()))
    assert left["einsum"] == 1
    (refusal,) = (r for r in outcome.refusals if "einsum" in r.operator)
    assert "not that of one matrix" in refusal.reason
