"""Small networks, each with something that copies, files, other precisions, compilers or training trip over.

A table: name -> a function that makes the network and its inputs, float32, weights drawn from a fixed seed.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import Net, PairNet, noise, randomised

Make = Callable[[], tuple[nn.Module, tuple[Any, ...]]]
NETWORKS: dict[str, Make] = {}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Answer:
    """Registered with torch.export when it is returned first."""

    logits: Tensor
    aux: list[Tensor]


def image(*shape: int) -> Tensor:
    return noise(*(shape or (2, 3, 6, 5)), seed=3, dtype=torch.float32)


def _parts() -> dict[str, nn.Module | Tensor]:
    return {
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "side": nn.Conv2d(3, 4, 1),
        "next": nn.Conv2d(4, 4, 1),
    }


def _of(name: str, forward: Callable[..., Any], inputs: Callable[[], tuple[Any, ...]], **more: Any) -> None:
    kind = PairNet if len(inputs()) == 2 else Net

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        torch.manual_seed(0)
        parts = {key: value() if callable(value) else value for key, value in more.items()}
        return randomised(kind(forward, **_parts(), **parts)), inputs()

    NETWORKS[name] = make


def _image(name: str, forward: Callable[..., Any], **more: Any) -> None:
    _of(name, forward, lambda: (image(),), **more)


def _module(name: str, make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    def made() -> tuple[nn.Module, tuple[Any, ...]]:
        torch.manual_seed(0)
        return randomised(make()), inputs or (image(),)

    NETWORKS[name] = made


def block(self: Any, x: Tensor) -> Tensor:
    y: Tensor = self.norm(self.conv(x)) + self.side(x)
    return y


# Plain blocks and what they return

_image("block", block)
_image("block and relu", lambda s, x: F.relu(block(s, x), inplace=True))
_image("two outputs", lambda s, x: (block(s, x), s.next(block(s, x)).mean((2, 3))))
_image("list of outputs", lambda s, x: [block(s, x), s.next(block(s, x))])
_image("dict of outputs", lambda s, x: {"b": block(s, x), "a": s.next(block(s, x))})
_image("ordered dict", lambda s, x: collections.OrderedDict(z=block(s, x), a=block(s, x).relu()))
_image("named tuple", lambda s, x: Pair(block(s, x), s.next(block(s, x))))
_image("dataclass", lambda s, x: Answer(block(s, x), [s.next(block(s, x))]))
_image("nested outputs", lambda s, x: {"a": [Pair(block(s, x), x * 2)], "b": (s.next(block(s, x)), 3, None)})
_image("output twice", lambda s, x: (lambda y: (y, y))(block(s, x)))
_image("integer output", lambda s, x: (block(s, x), block(s, x).argmax(1)))
_of("two inputs", lambda s, x, y: block(s, x) + block(s, y), lambda: (image(), image() * 2))
_of(
    "dict of inputs",
    lambda s, x, y: block(s, x) * y["scale"],
    lambda: (image(), {"scale": torch.ones(4, 1, 1)}),
)
_of("integer input", lambda s, x, y: block(s, x)[:, y], lambda: (image(), torch.tensor([1, 0])))

# Buffers and constants

_image("buffer", lambda s, x: block(s, x) * s.scale, scale=lambda: torch.arange(1.0, 5.0).view(4, 1, 1))
_image("constant", lambda s, x: block(s, x).relu() * torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1).exp())
_image("scalar constant", lambda s, x: block(s, x).relu() + torch.tensor(0.5) * s.next(block(s, x)))
_image("several constants", lambda s, x: (block(s, x) + torch.tensor(2.0)).relu() * torch.tensor([[1.0]]))
_image("integer buffer", lambda s, x: block(s, x)[:, s.order], order=lambda: torch.tensor([2, 0, 3, 1]))
_image(
    "mask",
    lambda s, x: block(s, x).where(s.keep, 0.0),
    keep=lambda: torch.tensor([[True, False, True, True, False]]),
)
_image(
    "parameter", lambda s, x: block(s, x).relu() * s.gamma, gamma=lambda: nn.Parameter(torch.randn(4, 1, 1))
)


class Hidden(nn.Module):
    """Buffers that are no part of the state dict, at the root and below."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.register_buffer("hidden", torch.arange(1.0, 4.0).view(3, 1, 1), persistent=False)
        self.register_buffer("shown", torch.arange(2.0, 5.0).view(3, 1, 1))
        self.inner = Hidden(depth - 1) if depth else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(self.norm(self.conv(x)).sigmoid() * self.hidden + self.shown)
        return y


_module("hidden buffers", Hidden)
_module("hidden buffers below", lambda: nn.Sequential(Hidden(0), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))

# Shared weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.norm(self.first(x)).relu()).relu()
        return y


class TiedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid = nn.Embedding(7, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.mid(self.embed(x)).relu())
        return y


_module("tied convolutions", Tied)
_module("tied embedding", TiedHead, torch.tensor([[1, 2, 6], [0, 3, 5]]))
_image("layer used twice", lambda s, x: s.next(s.next(block(s, x)).relu()))
_module(
    "one block twice",
    lambda: (lambda b: nn.Sequential(b, nn.ReLU(), b))(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))),
)

# Recurrent networks


class Recurrent(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)
        self.rnn = kind(4, 3, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rnn(self.norm(self.conv(x)).transpose(1, 2))[0]
        return y


class States(Recurrent):
    def forward(self, x: Tensor) -> Any:
        return self.rnn(self.norm(self.conv(x)).transpose(1, 2))


for _name, _kind, _options in (
    ("LSTM", nn.LSTM, {}),
    ("LSTM of two layers", nn.LSTM, {"num_layers": 2}),
    ("LSTM both ways", nn.LSTM, {"bidirectional": True}),
    ("LSTM with a projection", nn.LSTM, {"proj_size": 2}),
    ("GRU", nn.GRU, {}),
    ("GRU both ways", nn.GRU, {"bidirectional": True, "num_layers": 2}),
    ("RNN", nn.RNN, {"nonlinearity": "relu"}),
):
    _module(_name, partial(Recurrent, _kind, **_options), image(2, 3, 6))
_module("LSTM and its states", lambda: States(nn.LSTM), image(2, 3, 6))
_module("GRU and its state", lambda: States(nn.GRU), image(2, 3, 6))


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)
        for step in range(3):
            h, c = self.cell(x[:, step], (h, c))
        y: Tensor = self.out(h)
        return y


_module("LSTM cells", Cells, image(2, 3, 3))

# Writes in place


def _slice_of_another(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y[..., 0] = x.mean()
    return y


def _canvas(s: Any, x: Tensor) -> Tensor:
    z = torch.zeros(x.shape[0], 4, x.shape[2] + 2, x.shape[3] + 2)
    z[:, :, 1:-1, 1:-1] = block(s, x)
    return z * s.next(z)


def _new_canvas(s: Any, x: Tensor) -> Tensor:
    z = x.new_empty(x.shape[0], 8, x.shape[2], x.shape[3])
    z[:, :4].copy_(block(s, x))
    z[:, 4:] = s.side(x) * 2
    return z


def _broadcast_copy(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y[:, 1:3].copy_(s.gamma[1:3])
    return y * s.gamma


def _chained(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y += s.side(x)
    y.mul_(2).clamp_(min=-3)
    return y


def _cast_write(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y[:, 0] = y[:, 1].double() * 2
    y[:, 2] = x[:, 0] > 0
    return y


def _masked(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y[y > 0.5] = 0.5
    y.masked_fill_(y < -1, 0.0)
    return y


def _fancy(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    y[:, [0, 2]] = s.gamma[:2] * 2
    y.index_add_(1, torch.tensor([0, 1]), x[:, :2])
    return y


def _relu_chain(s: Any, x: Tensor) -> Tensor:
    y = F.relu_(block(s, x))
    F.hardtanh_(y, 0, 4)
    return s.next(F.leaky_relu_(y, 0.1))


def _scatter(s: Any, x: Tensor) -> Tensor:
    y = block(s, x).flatten(2).clone()
    y.scatter_(2, y.argmax(2, keepdim=True), 0.0)
    y.diagonal(dim1=1, dim2=2).mul_(2)
    return y


_gamma = {"gamma": lambda: nn.Parameter(torch.randn(4, 1, 1))}


def _slice_of_a_number(s: Any, x: Tensor) -> Tensor:
    y: Tensor = block(s, x)
    y[..., 0] = 1
    return y


_image("slice set to a number", _slice_of_a_number)
_image("slice set to another", _slice_of_another)
_image("canvas", _canvas)
_image("canvas that is new", _new_canvas)
_image("broadcast copy", _broadcast_copy, **_gamma)
_image("chain in place", _chained)
_image("write of another type", _cast_write)
_image("masked write", _masked)
_image("indexed write", _fancy, **_gamma)
_image("activations in place", _relu_chain)
_image("scatter", _scatter)
_image("input written", lambda s, x: block(s, x.mul_(2)))


# State that the network changes


def _count(s: Any, x: Tensor) -> Tensor:
    s.count += 1
    return block(s, x) * s.count


def _mean_without_gradient(s: Any, x: Tensor) -> Tensor:
    y = block(s, x) - s.mean
    with torch.no_grad():
        s.mean.mul_(0.9).add_(y.mean((0, 2, 3)).view(4, 1, 1), alpha=0.1)
    return y


def _mean_detached(s: Any, x: Tensor) -> Tensor:
    y = block(s, x)
    s.mean.copy_(y.detach().mean((0, 2, 3)).view(4, 1, 1))
    return y - s.mean


def _queue(s: Any, x: Tensor) -> Tensor:
    past = s.past.clone()
    s.past.copy_(x.detach()[:1])
    return block(s, x) + s.side(past)


def _reassigned(s: Any, x: Tensor) -> Tensor:
    s.mean = s.mean * 0.5 + 1
    return block(s, x) * s.mean


_mean = {"mean": lambda: torch.zeros(4, 1, 1)}
_image("counter", _count, count=lambda: torch.zeros((), dtype=torch.long))
_image("running mean", _mean_without_gradient, **_mean)
_image("running mean, detached", _mean_detached, **_mean)
_image("queue", _queue, past=lambda: image(1, 3, 6, 5))
_image("buffer that is exchanged", _reassigned, **_mean)

# Where gradients stop

_image("detached gate", lambda s, x: block(s, x) * s.next(block(s, x)).sigmoid().detach())
_image("detached input", lambda s, x: s.side(x) + s.conv(x.detach()))
_image("straight through", lambda s, x: (lambda y: y + (y.clamp(-1, 1) - y).detach())(block(s, x)))

# Sizes and numbers in the graph

_image("sizes", lambda s, x: block(s, x).reshape(x.shape[0], -1) / (x.shape[2] * x.shape[3]))
_image(
    "zeros of a free size", lambda s, x: torch.cat([block(s, x), torch.zeros(x.shape[0], 1, *x.shape[2:])], 1)
)
_image("arange", lambda s, x: block(s, x) + torch.arange(x.shape[-1]))
_image("interpolation", lambda s, x: F.interpolate(block(s, x), scale_factor=2, mode="bilinear"))
_image("pooling", lambda s, x: F.adaptive_avg_pool2d(block(s, x), 1).flatten(1))
_image("padding", lambda s, x: s.next(F.pad(block(s, x), (1, 2), value=0.5)))
_image("einsum", lambda s, x: torch.einsum("nchw,dc->ndhw", block(s, x), s.next.weight[:, :, 0, 0]))
_image("complex numbers", lambda s, x: torch.fft.rfft2(block(s, x)).abs())

# Other layers

_module(
    "linear",
    lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)),
    image(3, 6),
)
_module(
    "transposed", lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.BatchNorm2d(4), nn.ReLU())
)
_module("grouped", lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.PReLU()))
_module("dropout", lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(), nn.GELU()))
_module("layer norm", lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 4)))
_module("group norm", lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)))
_module(
    "weight norm",
    lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)),
)
_module(
    "volumes",
    lambda: nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ELU()),
    image(2, 2, 4, 3, 5),
)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        z: Tensor = self.out(self.attention(y, y, y, need_weights=False)[0]) + x
        return z


_module("attention", Attention, image(2, 5, 8))
_module("transformer layer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), image(2, 5, 8))
