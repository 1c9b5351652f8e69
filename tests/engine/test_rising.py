"""Maps on a piece of a layer's output go into the layer, if nothing else reads that piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import assert_same, noise, randomised

TOKENS = noise(2, 5, 6)
IMAGE = noise(2, 4, 6, 7)


class Net(nn.Module):
    """Some modules, and a forward over them."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)
        self.vector = nn.Parameter(torch.linspace(0.5, 2.0, 4))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def left(function: Callable[..., Any], x: Tensor, dynamic: Any = False, **modules: nn.Module) -> list[str]:
    """The calls of ATen operators in the folded network, those that only move values left out."""
    net = randomised(Net(function, **modules).double()).eval()
    module = fold_program(capture(net, (x,), dynamic=dynamic)).module
    assert_same(net(x), module(x))
    if dynamic:
        other = torch.cat([x, x + 1])
        assert_same(net(other), module(other))
    assert not [name for name in module.state_dict() if "constant" in name]
    names = [str(n.target).split(".")[1] for n in module.graph.nodes if str(n.target).startswith("aten")]
    moves = ("reshape", "permute", "transpose", "unbind", "chunk", "split", "unsqueeze", "sym_size", "select")
    return [name for name in names if not name.startswith(moves)]


def heads(m: Any, x: Tensor) -> Any:
    """q, k and v of two heads, by way of unbind."""
    batch, tokens, _ = x.shape
    return m.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_the_scale_of_q(dynamic: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = heads(m, x)
        return ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v

    kept = left(forward, TOKENS, dynamic, qkv=nn.Linear(6, 24))
    assert kept == ["matmul", "softmax", "matmul"]


def _between_convolutions(m: Any, x: Tensor, act: Callable[[Tensor], Tensor], gain: Any) -> Any:
    """HGNetV2's block: an activation with a gain and a shift of its own, which the border keeps there."""
    return m.second(act(m.norm(m.first(x))) * gain + 0.3)


def _convolutions() -> dict[str, nn.Module]:
    padded = {"padding": 1, "bias": False}
    return {
        "first": nn.Conv2d(4, 4, 3, **padded),  # type: ignore[arg-type]
        "norm": nn.BatchNorm2d(4),
        "second": nn.Conv2d(4, 4, 3, **padded),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize(
    "act",
    [
        torch.relu,
        lambda a: F.leaky_relu(a, 0.2),
        lambda a: F.max_pool2d(a, 3, 2, 1),
        lambda a: F.max_pool2d(a.relu(), 2, 1),
    ],
)
def test_the_gain_behind_an_activation(act: Callable[[Tensor], Tensor], dynamic: Any) -> None:
    def scalar(m: Any, x: Tensor) -> Any:
        return _between_convolutions(m, x, act, 0.7)

    def per_channel(m: Any, x: Tensor) -> Any:
        return _between_convolutions(m, x, act, m.vector.view(1, -1, 1, 1))

    for forward in scalar, per_channel:
        assert "mul" not in left(forward, IMAGE, dynamic, **_convolutions())


@pytest.mark.parametrize(
    ("act", "gain"),
    [
        (torch.relu, -0.7),
        (F.relu6, 0.7),
        (F.gelu, 0.7),
        (torch.relu, torch.tensor([0.5, -0.5, 1.0, 2.0]).view(1, 4, 1, 1).double()),
    ],
)
def test_the_gain_that_has_to_stay(act: Callable[[Tensor], Tensor], gain: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return _between_convolutions(m, x, act, gain)

    net = randomised(Net(forward, **_convolutions()).double()).eval()
    module = fold_program(capture(net, (IMAGE,), dynamic=False)).module
    assert_same(net(IMAGE), module(IMAGE))
    first = module.get_submodule("first")
    bare = randomised(Net(lambda m, x: m.norm(m.first(x)).tanh(), **_convolutions()).double()).eval()
    expected = fold_program(capture(bare, (IMAGE,), dynamic=False)).module.get_submodule("first")
    assert torch.equal(first.weight, expected.weight)  # type: ignore[arg-type]


def test_the_gain_of_a_piece_behind_an_activation() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two = m.first(x).relu().chunk(2, 1)
        return (one * 2.0).exp(), two.exp()

    assert "mul" not in left(forward, IMAGE, **_convolutions())


def test_the_gain_of_a_sum_does_not_become_two() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.second((m.first(x) + x).relu() * 0.7 + 0.3)

    assert left(forward, IMAGE, **_convolutions()).count("mul") == 1


@pytest.mark.parametrize("form", [lambda a: a * 0.35, lambda a: a / math.sqrt(8)])
def test_the_scale_of_the_product(form: Callable[[Tensor], Tensor]) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = heads(m, x)
        return form(q @ k.transpose(-2, -1)).softmax(-1) @ v

    assert left(forward, TOKENS, qkv=nn.Linear(6, 24, bias=False)) == ["matmul", "softmax", "matmul"]


def test_channels_of_a_piece_may_lie_apart() -> None:
    """LeViT's heads: each has its q, k and v beside each other, behind a batch norm."""

    def forward(m: Any, x: Tensor) -> Any:
        x = m.norm(m.qkv(x).flatten(0, 1)).reshape(2, 5, 24)
        q, k, v = x.view(2, 5, 2, 12).split([3, 3, 6], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        return (q @ k * 0.577).softmax(-1) @ v

    kept = left(forward, TOKENS, qkv=nn.Linear(6, 24, bias=False), norm=nn.BatchNorm1d(24))
    assert kept == ["matmul", "softmax", "matmul"]


def test_a_norm_on_every_piece() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two = m.conv(x).split([3, 5], 1)
        return m.one(one).relu(), (m.two(two) + 1.0).relu()

    norms = {"one": nn.BatchNorm2d(3), "two": nn.BatchNorm2d(5)}
    assert left(forward, IMAGE, conv=nn.Conv2d(4, 8, 3, padding=1), **norms) == ["relu", "relu"]


def test_a_chain_on_one_piece() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two = m.conv(x).chunk(2, 1)
        return m.norm((one - 0.5) * m.vector.view(-1, 1, 1)).relu(), two.relu()

    assert left(forward, IMAGE, conv=nn.Conv2d(4, 8, 1), norm=nn.BatchNorm2d(4)) == ["relu", "relu"]


def test_a_slice() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.conv(x)
        return torch.cat([(y[:, :4] * 2.0).relu(), y[:, 4:].sigmoid()], 1)

    assert "mul" not in left(forward, IMAGE, conv=nn.Conv2d(4, 8, 1))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (lambda a, b: ((a * 2.0).relu(), a.exp(), b))(*m.conv(x).chunk(2, 1)),
        lambda m, x: (lambda y: ((y[:, :4] * 2.0).relu(), y[:, 3:].exp()))(m.conv(x)),
        lambda m, x: (lambda y: ((y.chunk(2, 1)[0] * 2.0).relu(), y.exp()))(m.conv(x)),
        lambda m, x: (lambda y: (y.chunk(2, 1)[0] * 2.0, y))(m.conv(x)),
        lambda m, x: (m.conv(x).sigmoid().chunk(2, 1)[0] * 2.0).exp(),
        lambda m, x: (m.conv(x).chunk(2, 1)[0] * x).relu(),
        lambda m, x: (m.conv(x).chunk(2, 1)[0] * torch.linspace(1, 2, 7).double()).relu(),
        lambda m, x: (lambda a, b: (a * 2.0, b.exp()))(*m.conv(x).chunk(2, 1)),
    ],
    ids=[
        "the piece has another reader",
        "overlapping pieces",
        "the whole has another reader",
        "the whole is an output",
        "an activation above the cut",
        "a product with the input",
        "along the positions",
        "it is an output",
    ],
)
def test_it_stays(forward: Callable[..., Any]) -> None:
    assert "mul" in left(forward, IMAGE, conv=nn.Conv2d(4, 8, 1))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (lambda s: ((s * 0.5).softmax(-1), s.exp()))(m.q(x) @ m.k(x).transpose(1, 2)),
        lambda m, x: (lambda q: ((q @ q.transpose(1, 2)) * 0.5).softmax(-1))(m.q(x)),
        lambda m, x: ((m.q(x).relu() @ m.k(x).transpose(1, 2)) * 0.5).softmax(-1),
        lambda m, x: ((m.q(x) @ m.k(x).transpose(1, 2)) * m.vector[:1].view(1, 1, 1).expand(1, 5, 5)).exp(),
    ],
    ids=["the product has another reader", "a product with itself", "an activation above", "no number"],
)
def test_the_factor_of_a_product_stays(forward: Callable[..., Any]) -> None:
    assert "mul" in left(forward, TOKENS, q=nn.Linear(6, 4), k=nn.Linear(6, 4))


def test_in_float32_it_is_rounded_once() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two = m.conv(x).chunk(2, 1)
        return m.norm(one).relu(), two.relu()

    net = randomised(Net(forward, conv=nn.Conv2d(4, 8, 1), norm=nn.BatchNorm2d(4))).eval()
    module = fold_program(capture(net, (IMAGE.float(),), dynamic=False)).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert all(y.dtype is torch.float32 for y in module(IMAGE.float()))


def test_an_unbatched_convolution_is_left_alone() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        one, two = m.conv(x[0]).chunk(2, 1)
        return (one * 2.0).relu(), two.relu()

    kept = left(forward, IMAGE, conv=nn.Conv2d(4, 8, 1))
    assert kept.count("mul") == 1


def _in_rows(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Six channels of 4 · 6 positions as rows of sixteen: which channel lies where, no row says."""
    q, k = m.q(x), m.k(x)
    return q.reshape(len(x), 9, 16), k.reshape(len(x), 9, 16).transpose(1, 2), q


@pytest.mark.parametrize(
    ("forward", "stays"),
    [
        (lambda a, b, q: ((a @ b) * 0.5).softmax(-1), False),
        (lambda a, b, q: ((a.transpose(1, 2) @ b.transpose(1, 2)) * 0.5).softmax(-1), False),
        (lambda a, b, q: ((a @ b) * 0.5).softmax(-1).sum() + q.exp().sum(), True),
        (lambda a, b, q: ((a @ b) * 0.5).softmax(-1).sum() + a.exp().sum(), True),
        (lambda a, b, q: ((a @ b) * 0.5 + 1.0).cos() + (a @ b).cos(), True),
        (lambda a, b, q: ((a[:, :5] @ b) * 0.5).softmax(-1), True),
        (lambda a, b, q: (a * torch.linspace(1, 2, 9)[:, None].double()) @ b, True),
    ],
)
def test_one_factor_passes_any_reshape(forward: Callable[..., Any], stays: bool) -> None:
    image = noise(2, 4, 4, 6)
    kept = left(lambda m, x: forward(*_in_rows(m, x)), image, q=nn.Conv2d(4, 6, 1), k=nn.Conv2d(4, 6, 1))
    assert ("mul" in kept) == stays
