"""Functionalisation: networks that write in place, captured, against themselves run eagerly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import reparamkit as rk
from tests.nets import Net, fold, nodes_of, noise, randomised


def _conv() -> nn.Conv2d:
    return randomised(nn.Conv2d(3, 4, 3, padding=1))


def _relu_after_nothing(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = self.nothing(y)
    z.relu_()
    return y + 1, z


def _later_readers(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y += 1
    z = y * 2
    y.mul_(3)
    return y + z, y


def _write_through_a_slice(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y[:, 0] = 7.0
    y[:, 1:3, ::2].mul_(-1)
    return y


def _write_into_a_chunk(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    a, b = y.chunk(2, 1)
    a.add_(b)
    return y, a


def _write_into_what_was_chunked(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    a, b = y.chunk(2, 1)
    y.mul_(2)
    return a - b


def _write_after_dropout_that_is_off(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = F.dropout(y, 0.5, training=False)
    z.add_(1)
    return y


def _write_after_dropout_in_place(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = F.dropout(y, 0.5, training=False, inplace=True)
    z.add_(1)
    return y, z


def _write_through_a_reshape(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y.reshape(y.shape[0], -1)
    z.sub_(1)
    return y


def _write_through_a_permute(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y.permute(0, 2, 3, 1).add_(torch.arange(4.0, dtype=y.dtype))
    return y


def _write_through_an_einsum(self: Any, x: Tensor) -> Any:
    """With one operand and nothing summed over, einsum is a permute: a view."""
    y = self.conv(x)
    torch.einsum("nchw->nhwc", y).add_(1.0)
    return y


def _write_through_an_expanded_copy(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y.expand(-1, -1, -1, -1)
    z.add_(1)
    return y


def _write_through_contiguous(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y.contiguous().add_(1)
    return y


def _write_through_a_cast_that_is_none(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y.to(x.dtype).add_(1)
    return y


def _write_through_flip_and_narrow(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y.narrow(1, 0, 2).flip(2).add_(1)  # a flip copies
    y.narrow(1, 1, 2).neg_()
    return y


def _write_to_the_input(self: Any, x: Tensor) -> Any:
    x.mul_(2)
    return self.conv(x)


def _write_to_a_view_of_the_input(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    x[:, :1].add_(1)
    return y + self.conv(x)


def _add_to_itself(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    y.add_(y)
    y.mul_(y)
    return y


def _alpha(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    return y.clone().add_(y, alpha=-3).sub_(1, alpha=2)


def _comparisons_keep_their_number_type(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    return y.clone().gt_(0) + y.clone().lt_(0.5), y.clone().eq_(y), y.clone().logical_not_()


def _fill_and_mask(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y.clone()
    z.masked_fill_(y > 0, -1.0)
    y.zero_().add_(z)
    return y.clamp_(min=-0.5)


def _metadata_in_place(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y.unsqueeze_(0)
    z.add_(1)
    return y, z.squeeze_(0) * 2


def _loop(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    parts = list(y.split(1, 1))
    for i in range(1, 4):
        parts[i] += parts[i - 1]
    return torch.cat(parts, 1), y


FORWARDS: list[Callable[..., Any]] = [
    _relu_after_nothing,
    _later_readers,
    _write_through_a_slice,
    _write_into_a_chunk,
    _write_into_what_was_chunked,
    _write_after_dropout_that_is_off,
    _write_after_dropout_in_place,
    _write_through_a_reshape,
    _write_through_a_permute,
    _write_through_an_einsum,
    _write_through_an_expanded_copy,
    _write_through_contiguous,
    _write_through_a_cast_that_is_none,
    _write_through_flip_and_narrow,
    _write_to_the_input,
    _write_to_a_view_of_the_input,
    _add_to_itself,
    _alpha,
    _comparisons_keep_their_number_type,
    _fill_and_mask,
    _metadata_in_place,
    _loop,
]


@pytest.mark.diagonal(11)
@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("dynamic", [False, "auto"], ids=["fixed", "free"])
def test_in_place_networks_compute_what_they_did(forward: Callable[..., Any], dynamic: Any) -> None:
    net = Net(forward, conv=_conv(), nothing=nn.Identity())
    done = fold(net, noise(2, 3, 6, 5), dynamic=dynamic)
    done.compare(noise(2, 3, 6, 5, seed=1))


@pytest.mark.diagonal(11)
@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__.strip("_"))
def test_nothing_in_place_is_left_in_the_graph(forward: Callable[..., Any]) -> None:
    """But for the write-back into the network's own inputs, which comes last."""
    done = fold(Net(forward, conv=_conv(), nothing=nn.Identity()), noise(2, 3, 6, 5))
    calls = [n for n in nodes_of(done.module) if n.op == "call_function"]
    writes = [n for n in calls if isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable]
    assert all(n.target is torch.ops.aten.copy_.default for n in writes)
    assert all(isinstance(n.args[0], fx.Node) and n.args[0].op == "placeholder" for n in writes)
    assert calls[len(calls) - len(writes) :] == writes


def _last_two_beside_a_write(self: Any, x: Tensor) -> Any:
    y = self.conv(x)[..., -2:]
    self.seen.copy_(y.flatten(1)[:, :4].mean(0))
    return y.flatten(1)


def _middle_beside_a_write(self: Any, x: Tensor) -> Any:
    y = self.conv(x)[:, :, 1:-1]
    self.seen.copy_(y.mean((0, 2, 3)))
    return y.reshape(-1, 4 * y.shape[2])


def _at_most_three_beside_a_write(self: Any, x: Tensor) -> Any:
    y = self.conv(x)
    z = y[..., :3]
    y[:, 0] = 0.0
    return z.flatten(2) + z.shape[3]


@pytest.mark.parametrize(
    "forward", [_last_two_beside_a_write, _middle_beside_a_write, _at_most_three_beside_a_write]
)
def test_sizes_that_were_settled_while_it_was_made_functional(forward: Callable[[Any, Tensor], Any]) -> None:
    """torch traces the graph once more then, and tells nobody what it took the sizes for."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = _conv()
            self.register_buffer("seen", torch.ones(4))

        def forward(self, x: Tensor) -> Any:
            return forward(self, x)

    model = Writes().eval()
    folded = rk.fold(model, torch.randn(2, 3, 5, 6))
    answered = 0
    for height, width in itertools.product(range(1, 5), range(1, 5)):
        x = noise(1, 3, height, width).float()
        try:
            expected = model(x)
            found = folded.module(x)
        except (RuntimeError, ValueError):
            continue  # the network has no answer, or the fold refuses
        answered += 1
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert answered > 3
