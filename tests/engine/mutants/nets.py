"""Small networks that together reach every line of the engine that a mutant changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fixtures.blocks import dbb, ecb
from fixtures.refusals import wrong_border
from tests.nets import Net, PairNet, noise, randomised


@dataclass(frozen=True)
class Subject:
    """A network with the example that it is captured with.

    Attributes:
        build: makes the network; its weights are drawn anew afterwards.
        shapes: of the example, one per input.
        others: more shapes that it is compared at; `refused` are those that it must not take.
        dynamic, merge: as for `reparamkit.fold`.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    others: tuple[tuple[tuple[int, ...], ...], ...] = ()
    refused: tuple[tuple[tuple[int, ...], ...], ...] = ()
    dynamic: Any = False
    merge: bool = False
    dtype: torch.dtype = torch.float32

    def network(self) -> nn.Module:
        return randomised(self.build()).to(self.dtype)

    def inputs(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
        return tuple(noise(*shape, seed=i, dtype=self.dtype) for i, shape in enumerate(shapes))


SUBJECTS: dict[str, Subject] = {}
_IMAGE = (2, 3, 9, 8)


def _net(function: Callable[..., Any], *shapes: tuple[int, ...], **options: Any) -> None:
    """Register `function(self, x)` under its own name."""
    parts = options.pop("parts", dict)
    kind = PairNet if len(shapes) > 1 else Net
    name = function.__name__
    SUBJECTS[name] = Subject(lambda: kind(function, **parts()), shapes or (_IMAGE,), **options)


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def chain(s: Any, x: Tensor) -> Tensor:
    return s.last(s.norm(s.conv(x)).relu()) * 2.0


_net(
    chain,
    parts=lambda: {
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "last": nn.Conv2d(4, 4, 1, bias=False),
    },
    others=(((1, 3, 6, 11),), ((3, 3, 9, 8),)),
    dynamic="auto",
)


def repvgg(s: Any, x: Tensor) -> Tensor:
    return (s.n3(s.c3(x)) + s.n1(s.c1(x)) + s.n0(x)).relu()


_net(
    repvgg,
    (2, 4, 7, 6),
    parts=lambda: {
        "c3": nn.Conv2d(4, 4, 3, padding=1, bias=False),
        "c1": nn.Conv2d(4, 4, 1, bias=False),
        "n3": nn.BatchNorm2d(4),
        "n1": nn.BatchNorm2d(4, affine=False),
        "n0": nn.BatchNorm2d(4),
    },
)


def grouped(s: Any, x: Tensor) -> Tensor:
    return (s.wide(x) + s.norm(s.narrow(x)) + s.deep(x) + x).relu()


_net(
    grouped,
    (2, 4, 11, 10),
    parts=lambda: {
        "wide": nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=2),
        "narrow": nn.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=4),
        "deep": nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        "norm": nn.BatchNorm2d(4),
    },
)


def strided(s: Any, x: Tensor) -> Tensor:
    return (s.norm(s.wide(x)) + s.one(x)).relu()


_net(
    strided,
    (2, 3, 9, 8),
    parts=lambda: {
        "wide": nn.Conv2d(3, 4, 3, stride=2, padding=1),
        "norm": nn.BatchNorm2d(4),
        "one": nn.Conv2d(3, 4, 1, stride=2),
    },
)


def one_dimension(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.a(x) + s.b(x)).relu()


_net(
    one_dimension,
    (2, 3, 12),
    parts=lambda: {
        "a": nn.Conv1d(3, 6, 5, padding=2, groups=3),
        "b": nn.Conv1d(3, 6, 3, padding=1),
        "norm": nn.BatchNorm1d(6),
    },
)


def three_dimensions(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.a(x)).relu()


_net(
    three_dimensions,
    (1, 2, 5, 6, 4),
    parts=lambda: {
        "a": nn.Conv3d(2, 4, (3, 1, 2), padding=(1, 0, 1), stride=(1, 2, 1), bias=False),
        "norm": nn.BatchNorm3d(4),
    },
)


def same_padding(s: Any, x: Tensor) -> Tensor:
    return (s.even(x) + s.odd(x)).relu() + s.valid(F.pad(x, (1, 2, 0, 3))).mean()


_net(
    same_padding,
    parts=lambda: {
        "even": nn.Conv2d(3, 4, (4, 2), padding="same"),
        "odd": nn.Conv2d(3, 4, 3, padding="same", dilation=2),
        "valid": nn.Conv2d(3, 4, 3, padding="valid"),
    },
)


def sequence(s: Any, x: Tensor) -> Tensor:
    widened = s.wide(s.one(x))
    narrowed = s.back(s.inner(x))
    return (widened + narrowed + s.pool(s.flat(x)) + s.two(s.first(x))).relu()


_net(
    sequence,
    parts=lambda: {
        "one": nn.Conv2d(3, 5, 1, bias=False),
        "wide": nn.Conv2d(5, 4, 3, padding=1),
        "inner": nn.Conv2d(3, 6, 3, padding=1, stride=1),
        "back": nn.Conv2d(6, 4, 1),
        "flat": nn.Conv2d(3, 4, 1, bias=False),
        "pool": nn.AvgPool2d(3, stride=1, padding=1),
        "first": nn.Conv2d(3, 2, 3, padding=1),
        "two": nn.Conv2d(2, 4, 1, groups=2),
    },
)


def unpadded(s: Any, x: Tensor) -> Tensor:
    return s.third(s.second(s.first(x) + 0.5) - 1.5).relu()


_net(
    unpadded,
    (1, 2, 9, 10),
    parts=lambda: {
        "first": nn.Conv2d(2, 2, 3, bias=False),
        "second": nn.Conv2d(2, 2, 2, dilation=2, groups=2),
        "third": nn.Conv2d(2, 2, (1, 3)),
    },
)
SUBJECTS["bordered"] = Subject(lambda: dbb.DiverseBranchBlock(2, 4, 3), ((1, 2, 7, 6),))
SUBJECTS["border_of_another_value"] = Subject(lambda: wrong_border.OtherValue(2, 4), ((1, 2, 7, 6),))
SUBJECTS["border_on_two_sides"] = Subject(lambda: wrong_border.TwoSides(2, 4), ((1, 2, 7, 6),))
SUBJECTS["bordered_scales"] = Subject(lambda: ecb.EdgeOrientedBlock(3, 3), ((1, 3, 7, 6),))


def transposed_branches(s: Any, x: Tensor) -> Tensor:
    return (s.norm(s.wide(s.before(x))) + s.narrow(x)).relu()


_net(
    transposed_branches,
    (2, 4, 5, 4),
    parts=lambda: {
        "before": nn.Conv2d(4, 4, 1, bias=False),
        "wide": nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2),
        "narrow": nn.ConvTranspose2d(4, 6, 2, stride=2),
        "norm": nn.BatchNorm2d(6),
    },
)


def transposed_gathering(s: Any, x: Tensor) -> Tensor:
    return s.after(s.up(s.flat(x))).relu()


_net(
    transposed_gathering,
    (2, 3, 6, 5),
    parts=lambda: {
        "flat": nn.ConvTranspose2d(3, 4, 3, padding=1, groups=1, bias=False),
        "up": nn.ConvTranspose2d(4, 4, 3, stride=(2, 3), output_padding=(1, 0), padding=1),
        "after": nn.Conv2d(4, 4, 1),
    },
)


def linears(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.first(x)) @ s.matrix
    return (s.second(y * s.scale + s.shift) - s.other(x)).tanh()


_net(
    linears,
    (3, 5),
    parts=lambda: {
        "first": nn.Linear(5, 6),
        "norm": nn.BatchNorm1d(6),
        "second": nn.Linear(4, 2, bias=False),
        "other": nn.Linear(5, 2),
        "matrix": _weight(6, 4),
        "scale": _weight(4),
        "shift": _weight(4),
    },
)


def products(s: Any, x: Tensor) -> Tensor:
    y = torch.addmm(s.bias, x, s.first)
    return (torch.mm(y, s.second) / s.divisor).sigmoid()


_net(
    products,
    (3, 5),
    parts=lambda: {
        "bias": _weight(4),
        "first": _weight(5, 4),
        "second": _weight(4, 4),
        "divisor": _weight(4),
    },
)


def arithmetic(s: Any, x: Tensor) -> Tensor:
    y = s.conv(2.0 - (x * 3.0 - 1.0) / 4.0)
    z = torch.sub(s.constant, y, alpha=2.0) + torch.rsub(y, 1.5, alpha=0.5) - (-y)
    return (torch.add(z * s.scale / s.constant, s.scale, alpha=0.5) - s.constant).relu()


_net(
    arithmetic,
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3), "constant": _weight(4, 1, 1), "scale": _weight(4, 1, 1)},
)


def several_sources(s: Any, x: Tensor) -> Tensor:
    a, b = x.relu(), x.sigmoid()
    return (s.first(a) * 2.0 - (s.second(b) + 0.5) + a * 2.0 - b + 1.5).relu() + (a - b * 3.0 + b).tanh()


_net(
    several_sources,
    (2, 4, 6, 7),
    parts=lambda: {"first": nn.Conv2d(4, 4, 3, padding=1), "second": nn.Conv2d(4, 4, 1)},
)


def concatenated(s: Any, x: Tensor) -> Tensor:
    y = torch.cat([s.a(x), x, s.norm(s.b(x))], 1)
    return s.after(y).relu()


_net(
    concatenated,
    (2, 3, 7, 6),
    parts=lambda: {
        "a": nn.Conv2d(3, 2, 3, padding=1),
        "b": nn.Conv2d(3, 4, 1, bias=False),
        "norm": nn.BatchNorm2d(4),
        "after": nn.Conv2d(9, 4, 1),
    },
)


def over_concat(s: Any, x: Tensor) -> Tensor:
    y = torch.cat([s.a(x.relu()), s.b(x.sigmoid())], 1)
    return s.norm(y).relu()


_net(
    over_concat,
    (2, 3, 7, 6),
    parts=lambda: {
        "a": nn.Conv2d(3, 2, 3, padding=1),
        "b": nn.Conv2d(3, 4, 1, bias=False),
        "norm": nn.BatchNorm2d(6),
    },
)


def norms(s: Any, x: Tensor) -> Tensor:
    y = s.conv(s.group(x)).relu()
    return s.linear(s.layer(y.flatten(2).transpose(1, 2)))


_net(
    norms,
    (2, 4, 5, 6),
    parts=lambda: {
        "group": nn.GroupNorm(2, 4),
        "conv": nn.Conv2d(4, 6, 1),
        "layer": nn.LayerNorm(6),
        "linear": nn.Linear(6, 3),
    },
)


def sinking(s: Any, x: Tensor) -> Tensor:
    y = s.norm(x.relu())
    z = s.other(x.tanh()) * 1.5
    return s.head(y.mean((2, 3))) + s.head2(F.adaptive_avg_pool2d(z, 1).flatten(1))


_net(
    sinking,
    (2, 4, 6, 7),
    parts=lambda: {
        "norm": nn.BatchNorm2d(4),
        "other": nn.BatchNorm2d(4),
        "head": nn.Linear(4, 3),
        "head2": nn.Linear(4, 3),
    },
)


def sinking_moves(s: Any, x: Tensor) -> Tensor:
    y = s.norm(x.relu()).permute(0, 2, 3, 1)
    first, second = s.other(x.sigmoid()).chunk(2, 1)
    pooled = s.last(F.avg_pool2d(s.other2(x.tanh()), 2))
    return s.head(y).mean() + s.conv(first).relu().mean() * s.conv2(second).relu() + pooled.mean()


_net(
    sinking_moves,
    (2, 4, 6, 8),
    parts=lambda: {
        "norm": nn.BatchNorm2d(4),
        "other": nn.BatchNorm2d(4),
        "other2": nn.BatchNorm2d(4),
        "head": nn.Linear(4, 3),
        "conv": nn.Conv2d(2, 3, 3),
        "conv2": nn.Conv2d(2, 3, 3),
        "last": nn.Conv2d(4, 3, 1),
    },
)


def lifting(s: Any, x: Tensor) -> Tensor:
    y = s.linear(x).transpose(1, 2).reshape(2, 6, 3, 4)
    return (y * s.gamma + s.beta).relu()


_net(
    lifting,
    (2, 12, 5),
    parts=lambda: {"linear": nn.Linear(5, 6), "gamma": _weight(6, 1, 1), "beta": _weight(6, 1, 1)},
)


def lifting_concat(s: Any, x: Tensor) -> Tensor:
    y = torch.cat([s.a(x.relu()), s.b(x.tanh())], 2).permute(0, 2, 1).contiguous()
    return s.norm(y).relu()


_net(
    lifting_concat,
    (2, 7, 5),
    parts=lambda: {"a": nn.Linear(5, 2), "b": nn.Linear(5, 4), "norm": nn.BatchNorm1d(6)},
)


def attention(s: Any, x: Tensor) -> Tensor:
    q, k, v = s.qkv(x).reshape(2, 6, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    weights = ((q @ k.transpose(-2, -1)) * 0.35).softmax(-1)
    return s.proj((weights @ (v * 0.5 + 0.25)).transpose(1, 2).reshape(2, 6, 8))


_net(
    attention,
    (2, 6, 8),
    parts=lambda: {"qkv": nn.Linear(8, 24), "proj": nn.Linear(8, 8)},
)


def gains(s: Any, x: Tensor) -> Tensor:
    first = F.max_pool2d(s.conv(x).relu(), 2) * 0.7 + 0.2
    second = F.leaky_relu(s.deep(first), 0.1) * -0.6
    third = s.norm(s.other(first).relu())
    fourth = s.deep((s.even(first) + first.sigmoid()).relu() * 0.8 + 0.1)
    return torch.cat([s.last(first).relu() * s.slope.abs(), second.tanh(), third.tanh(), fourth.tanh()], 1)


_net(
    gains,
    parts=lambda: {
        "conv": nn.Conv2d(3, 4, 3),
        "deep": nn.Conv2d(4, 3, 3, padding=1),
        "last": nn.Conv2d(4, 2, 1),
        "other": nn.Conv2d(4, 2, 1),
        "even": nn.Conv2d(4, 4, 1),
        "norm": nn.BatchNorm2d(2, affine=False),
        "slope": _weight(2, 1, 1),
    },
)


def pieces(s: Any, x: Tensor) -> Tensor:
    a, b, c = s.conv(x).split([2, 3, 1], 1)
    d, e = s.deep(x).chunk(2, 1)
    return torch.cat([s.norm(a).relu(), (b * 1.5 - 0.5).tanh(), c.sigmoid(), s.norm2(d).relu(), e.tanh()], 1)


_net(
    pieces,
    parts=lambda: {
        "conv": nn.Conv2d(3, 6, 3, padding=1),
        "deep": nn.Conv2d(3, 4, 1),
        "norm": nn.BatchNorm2d(2),
        "norm2": nn.BatchNorm2d(2),
    },
)


def shared_piece(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    first, second = y.split([2, 4], 1)
    return (first * 3.0).relu().sum(1, keepdim=True) + second.relu() + y.mean(1, keepdim=True).tanh()


_net(shared_piece, parts=lambda: {"conv": nn.Conv2d(3, 6, 3, padding=1)})


def response_norm(s: Any, x: Tensor) -> Tensor:
    g = s.linear(x).relu()
    n = g / (g.mean(-1, keepdim=True) + 1.0)
    return s.last(s.gamma * (g * n) + s.beta + g)


_net(
    response_norm,
    (2, 3, 4, 5),
    parts=lambda: {
        "linear": nn.Linear(5, 6),
        "gamma": _weight(1, 1, 1, 6),
        "beta": _weight(1, 1, 1, 6),
        "last": nn.Linear(6, 4),
    },
)


def computed_weights(s: Any, x: Tensor) -> Tensor:
    weight = s.weight * s.mask + s.delta @ s.rest
    return F.conv2d(x, weight.view(4, 3, 3, 3), s.bias * 2.0, padding=1).relu()


_net(
    computed_weights,
    parts=lambda: {
        "weight": _weight(4, 27),
        "mask": _weight(4, 27),
        "delta": _weight(4, 2),
        "rest": _weight(2, 27),
        "bias": _weight(4),
    },
)


def crops(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)[:, :, 1:-1, 2:]
    z = F.pad(x * 2.0, (1, 1, 1, 1))[:, :, ::2, ::2] + F.pad(x + x, (0, 2, 1, 1))[:, :, ::2, 1::2]
    return y.relu().mean((2, 3)) + s.norm(F.pad(z, (-1, -1))).relu().mean((2, 3)).sum(1, keepdim=True)


_net(
    crops,
    (2, 3, 8, 8),
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(3)},
)


def twice(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = s.conv(x)
    return s.norm(y).relu() + s.norm(s.conv(y.tanh())), y


_net(twice, parts=lambda: {"conv": nn.Conv2d(3, 3, 3, padding=1), "norm": nn.BatchNorm2d(3)})


def aliases(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = s.drop(s.conv(x)).contiguous()
    z = s.norm(y.clone().flatten(2).reshape(y.shape)).relu()
    return z.to(z.dtype) + 0.0, y.clone()


_net(
    aliases,
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3), "drop": nn.Dropout(0.5), "norm": nn.BatchNorm2d(4)},
)


def hands_back(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.clone(), s.conv(x.view(2, 3, 9, 8).clone()).relu()


_net(hands_back, parts=lambda: {"conv": nn.Conv2d(3, 4, 1)})


def siblings_linear(s: Any, x: Tensor) -> Tensor:
    return s.q(x).relu() + s.k(x).tanh() * s.v(x).sigmoid()


_net(
    siblings_linear,
    (2, 5, 4),
    parts=lambda: {"q": nn.Linear(4, 6), "k": nn.Linear(4, 6, bias=False), "v": nn.Linear(4, 6)},
    merge=True,
)


def siblings_concat(s: Any, x: Tensor) -> Tensor:
    return torch.cat([s.a(x), s.b(x)], 1).relu() + torch.cat([s.c(x), s.d(x)], 2).relu().mean()


_net(
    siblings_concat,
    (3, 5, 6),
    parts=lambda: {
        "a": nn.Conv2d(3, 4, 1),
        "b": nn.Conv2d(3, 4, 1),
        "c": nn.Conv2d(3, 2, 3, padding=1, stride=2),
        "d": nn.Conv2d(3, 2, 3, padding=1, stride=2, bias=False),
    },
    merge=True,
)


def writes(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    seen = s.seen.clone()
    s.seen.mul_(0.5).add_(y.mean((0, 2, 3)))
    return y.relu() + seen.view(-1, 1, 1)


_net(
    writes,
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "seen": torch.ones(4)},
)


def halves(s: Any, x: Tensor) -> Tensor:
    top, bottom = s.norm(s.conv(x)).chunk(2, 2)
    return torch.cat([top.relu(), bottom.tanh()], 2)


_net(
    halves,
    (2, 3, 8, 6),
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)},
    others=(((3, 3, 12, 7),),),
    dynamic="auto",
)


def two_inputs(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return (s.a(x) + s.b(y)).relu()


_net(
    two_inputs,
    (2, 3, 6, 6),
    (2, 4, 6, 6),
    parts=lambda: {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 4, 3, padding=1)},
    others=(((3, 3, 7, 5), (3, 4, 7, 5)),),
    refused=(((2, 3, 6, 6), (1, 4, 6, 6)),),
    dynamic="auto",
)


def half_precision(s: Any, x: Tensor) -> Tensor:
    return (s.norm(s.conv(x)) * 600.0).relu() + (x * 1e-3).relu().sum(1, keepdim=True) * 300.0 * 300.0


_net(
    half_precision,
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)},
    dtype=torch.bfloat16,
)


def scales_apart(s: Any, x: Tensor) -> Tensor:
    return (s.norm(s.conv(x)) * s.scale).tanh()


_net(
    scales_apart,
    parts=lambda: {
        "conv": nn.Conv2d(3, 4, 3),
        "norm": nn.BatchNorm2d(4),
        "scale": torch.tensor([1e6, 1, 1, 1e-6]).view(4, 1, 1),
    },
)


def two_readers(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))
    z = s.point(s.norm2(s.conv2(y))).relu()
    return z.tanh() + s.deep(z) + y.mean((1, 2, 3), keepdim=True)


_net(
    two_readers,
    parts=lambda: {
        "conv": nn.Conv2d(3, 4, 3),
        "norm": nn.BatchNorm2d(4),
        "norm2": nn.BatchNorm2d(4),
        "conv2": nn.Conv2d(4, 4, 3, padding=1),
        "point": nn.Conv2d(4, 16, 1),
        "deep": nn.Conv2d(16, 16, 3, padding=1, groups=16),
    },
)


def turned(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.flat(x) + s.conv(x)).relu()


_net(
    turned,
    parts=lambda: {
        "flat": nn.ConvTranspose2d(3, 4, (3, 2), padding=(1, 0)),
        "conv": nn.Conv2d(3, 4, (1, 2), padding=(0, 1)),
        "norm": nn.BatchNorm2d(4),
    },
)


def grouped_behind(s: Any, x: Tensor) -> Tensor:
    return s.last(s.mixed(s.first(x)) * s.scale).relu() + s.scaled(x.relu() * s.scale).tanh()


_net(
    grouped_behind,
    (2, 4, 6, 7),
    parts=lambda: {
        "first": nn.Conv2d(4, 4, 3),
        "mixed": nn.Conv2d(4, 4, 1, groups=2),
        "last": nn.Conv2d(4, 4, 1, groups=2),
        "scaled": nn.Conv2d(4, 4, 3, groups=2),
        "scale": _weight(4, 1, 1),
    },
)


def growing_windows(s: Any, x: Tensor) -> Tensor:
    return s.large(s.small(x)).relu() + s.skipping(x).mean() + s.padded(s.strided(x)).relu().mean()


_net(
    growing_windows,
    (2, 2, 9, 10),
    parts=lambda: {
        "small": nn.Conv2d(2, 2, 2, bias=False),
        "large": nn.Conv2d(2, 2, 3),
        "skipping": nn.Sequential(nn.Conv2d(2, 3, 3, dilation=2), nn.BatchNorm2d(3), nn.ReLU()),
        "strided": nn.Conv2d(2, 2, 1, stride=2, bias=False),
        "padded": nn.Conv2d(2, 2, 3, padding=1),
    },
)


def pictures(s: Any, x: Tensor) -> Any:
    """Canvases that are borders of the shift, and some that only nearly are."""
    y, shift = s.first(x), s.first.bias.view(1, -1, 1, 1)
    size = (*y.shape[:2], y.shape[2] + 1, y.shape[3] + 2)

    def canvas(fill: Tensor, inside: Tensor = y) -> Tensor:
        z = fill.expand(size).clone()
        z[:, :, 1:, 1:-1] = inside
        return z

    otherwise = canvas(shift)
    otherwise[..., :1] = 2 * shift
    skipping = canvas(2 * shift)
    skipping[:, :, :1], skipping[:, :, ::2, :1], skipping[..., -1:] = shift, shift, shift
    beyond = canvas(shift)
    beyond[:, :, :2] = shift
    buffer = torch.zeros(len(x), 5, *y.shape[2:], dtype=y.dtype)
    buffer[:, :3], buffer[:, 3:] = y, s.other(x)
    along = canvas(s.row)
    right = canvas(s.alone.bias.view(1, -1, 1, 1), s.alone(x))
    return [s.last(z) for z in (right, otherwise, skipping, beyond, along)], s.norm(buffer)


_net(
    pictures,
    (2, 3, 4, 5),
    parts=lambda: {
        "first": nn.Conv2d(3, 3, 1),
        "alone": nn.Conv2d(3, 3, 1),
        "other": nn.Conv2d(3, 2, 1),
        "last": nn.Conv2d(3, 2, (2, 3)),
        "norm": nn.BatchNorm2d(5),
        "row": _weight(1, 3, 1, 7),
    },
)


def contractions(s: Any, x: Tensor) -> list[Tensor]:
    """Matrices over split channels, over positions, over repeated channels, of shifted ones, and sums."""
    b, n, c = x.shape
    split = x.view(b, n, 4, 3)
    turned = (torch.einsum("bnrk,rkc->bnrc", split, s.blocks) * 0.5).transpose(2, 3).flatten(-2)
    second = x.view(b, n, 2, 2, 3)[:, :, :, 1]
    half = torch.einsum("bnrk,rkc->bnrc", second, s.blocks[:2]).flatten(-2)
    summed = s.narrow(split.sum(-2))
    shifted = torch.einsum("bnrk,rkc->bnrc", split + 1.0, s.blocks).flatten(-2)
    spread = x[..., None, :].expand(b, n, 3, c).sum(-2)
    along = torch.einsum("bnk,nkc->bnc", x, s.places)
    wide = s.wide(x) + s.wide(turned) + s.six(half) + summed
    return [wide, s.wide(shifted) + s.wide(x), s.wide(spread) + s.wide(x), s.wide(along) + s.wide(x)]


_net(
    contractions,
    (2, 5, 12),
    parts=lambda: {
        "blocks": _weight(4, 3, 3),
        "places": _weight(5, 12, 12),
        "wide": nn.Linear(12, 7),
        "six": nn.Linear(6, 7),
        "narrow": nn.Linear(3, 7, bias=False),
    },
)


def zero_borders(s: Any, x: Tensor) -> list[Tensor]:
    """Zeros that come out of a tensor, around a map with a shift, one without, and a sum."""

    def canvas(inside: Tensor) -> Tensor:
        z = (
            s.zeros.view(1, -1, 1, 1)
            .expand(*inside.shape[:2], inside.shape[2] + 1, inside.shape[3] + 2)
            .clone()
        )
        z[:, :, 1:, 1:-1] = inside
        return z

    y = x.tanh()
    total = canvas(s.plain(x) + s.other(y)) + s.padded(x)[:, :, 1:] + s.padded(y)[:, :, 1:]
    return [s.last(canvas(s.shifting(x))), s.last(canvas(s.plain(x))), total]


_net(
    zero_borders,
    (2, 3, 4, 5),
    parts=lambda: {
        "shifting": nn.Conv2d(3, 3, 1),
        "plain": nn.Conv2d(3, 3, 1, bias=False),
        "other": nn.Conv2d(3, 3, 1, bias=False),
        "padded": nn.Conv2d(3, 3, 1, padding=1, bias=False),
        "last": nn.Conv2d(3, 2, (2, 3)),
        "zeros": torch.zeros(3),
    },
)


def refused_borders(s: Any, x: Tensor) -> Tensor:
    y = s.second(s.first(x)) + s.third(x + 0.5) + s.cropped(F.pad(x, (-1, -1, -1, -1)))
    return y.relu() + s.far(F.pad(s.near(x), (0, 1, 0, 1))).relu()


_net(
    refused_borders,
    (2, 3, 7, 8),
    parts=lambda: {
        "first": nn.Conv2d(3, 3, 3, padding=1, bias=False),
        "second": nn.Conv2d(3, 3, 3, padding=1),
        "third": nn.Conv2d(3, 3, 3, padding=1),
        "cropped": nn.Conv2d(3, 3, 3, padding=2),
        "near": nn.Conv2d(3, 3, 2, padding=0, bias=False),
        "far": nn.Conv2d(3, 3, 1, bias=False),
    },
)


def far_border(s: Any, x: Tensor) -> Tensor:
    return s.second(F.pad(s.first(x), (0, 1, 0, 1))).relu()


_net(
    far_border,
    (2, 3, 7, 8),
    parts=lambda: {"first": nn.Conv2d(3, 3, 2, bias=False), "second": nn.Conv2d(3, 3, 2)},
)


def near_border(s: Any, x: Tensor) -> Tensor:
    return s.second(F.pad(s.first(x), (1, 0, 1, 0))).relu()


_net(
    near_border,
    (2, 3, 7, 8),
    parts=lambda: {"first": nn.Conv2d(3, 3, 2, bias=False), "second": nn.Conv2d(3, 3, 2)},
)


def same_at_this_size(s: Any, x: Tensor) -> Tensor:
    return (s.three(x) + s.two(x)).relu()


_net(
    same_at_this_size,
    (2, 3, 5, 5),
    parts=lambda: {"three": nn.Conv2d(3, 4, 3, stride=2), "two": nn.Conv2d(3, 4, 2, stride=2)},
)


def single_position(s: Any, x: Tensor) -> Tensor:
    return (s.one(x) + s.two(x)).relu()


_net(
    single_position,
    (2, 3, 1, 1),
    parts=lambda: {"one": nn.Conv2d(3, 4, 1), "two": nn.Conv2d(3, 4, 1, stride=2)},
)


def transposed_behind(s: Any, x: Tensor) -> Tensor:
    return s.up(s.even(x)).relu().mean((2, 3)) + s.wide(s.padded(x)).relu().mean((2, 3))


_net(
    transposed_behind,
    (2, 3, 5, 6),
    parts=lambda: {
        "even": nn.Conv2d(3, 3, 2, bias=False),
        "up": nn.ConvTranspose2d(3, 4, 2, stride=2),
        "padded": nn.Conv2d(3, 3, 3, padding=1, bias=False),
        "wide": nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1),
    },
)


def numbers_alone(s: Any, x: Tensor) -> Tensor:
    a, b = x.relu(), x.sigmoid()
    return (
        ((a * 2.0 + 1.0) * 3.0 - 1.0).tanh()
        + ((a + b * 2.0) - b * 3.0).exp()
        + F.pad(F.pad(b, (1, 1)), (1, 1)).mean()
    )


_net(numbers_alone)


def scores(s: Any, x: Tensor) -> Tensor:
    q, k = s.q(x), s.k(x)
    products = q @ k.transpose(-2, -1)
    return (products * 0.35).softmax(-1) + products.mean(-1, keepdim=True)


_net(scores, (2, 6, 8), parts=lambda: {"q": nn.Linear(8, 4), "k": nn.Linear(8, 4)})


def sinking_closed(s: Any, x: Tensor) -> Tensor:
    gone = s.after(s.norm(x.relu()).mean(1))
    joined = s.after2(s.norm2(x.tanh()).reshape(2, 16, 4))
    first, second = s.norm3(x.sigmoid()).split([1, 3], 1)
    pooled = s.four(F.avg_pool2d(s.norm4(x.abs()), 3, 1, 1))
    return (
        pooled.mean()
        + gone.mean()
        + joined.sum(1)
        + (s.one(first).relu() + s.three(second).relu()).mean((2, 3))
    )


_net(
    sinking_closed,
    (2, 4, 4, 4),
    parts=lambda: {
        "norm": nn.BatchNorm2d(4),
        "norm2": nn.BatchNorm2d(4),
        "norm3": nn.BatchNorm2d(4),
        "norm4": nn.BatchNorm2d(4),
        "four": nn.Conv2d(4, 4, 1),
        "after": nn.Linear(4, 4),
        "after2": nn.Linear(4, 4),
        "one": nn.Conv2d(1, 4, 1),
        "three": nn.Conv2d(3, 4, 1),
    },
)


def shifted_by_factor(s: Any, x: Tensor) -> Tensor:
    g = s.linear(x).relu()
    n = g / (g.mean(-1, keepdim=True) + 1.0)
    return s.last(torch.add(g, s.gamma * (g * n) + s.beta, alpha=0.5))


_net(
    shifted_by_factor,
    (2, 3, 4, 5),
    parts=lambda: {
        "linear": nn.Linear(5, 6),
        "gamma": _weight(1, 1, 1, 6),
        "beta": _weight(1, 1, 1, 6),
        "last": nn.Linear(6, 4),
    },
)


def partly_shared_concat(s: Any, x: Tensor) -> Tensor:
    return s.after(torch.cat([s.a(x), s.b(x), s.c(x.relu())], 1)).relu()


_net(
    partly_shared_concat,
    parts=lambda: {
        "a": nn.Conv2d(3, 2, 1),
        "b": nn.Conv2d(3, 2, 1),
        "c": nn.Conv2d(3, 2, 1),
        "after": nn.Conv2d(6, 4, 1),
    },
)


def lifting_read_twice(s: Any, x: Tensor) -> Tensor:
    y = s.linear(x).transpose(1, 2)
    g = s.other(x) + s.beta
    z = g + x.tanh() @ s.matrix
    return (y * s.gamma).relu().mean() + y.tanh().mean() + s.last(z).relu().sum(1) + g.mean(1)


_net(
    lifting_read_twice,
    (2, 12, 6),
    parts=lambda: {
        "linear": nn.Linear(6, 6),
        "other": nn.Linear(6, 6, bias=False),
        "last": nn.Linear(6, 6),
        "gamma": _weight(6, 1),
        "beta": _weight(6),
        "matrix": _weight(6, 6),
    },
)


def round_trips(s: Any, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x).flatten(2).unflatten(2, (7, 6)))
    again = y.tanh().flatten(1).reshape(2, 8, 21)
    return s.linear(y.relu().flatten(2).transpose(1, 2)) + again.mean()


_net(
    round_trips,
    parts=lambda: {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "linear": nn.Linear(4, 3)},
)


def between_views(s: Any, x: Tensor) -> Tensor:
    flat = x.reshape(-1, 6)
    y = s.linear(x) + torch.addmm(s.bias, flat, s.matrix).view(4, 4, 6)
    z = s.last(flat @ s.matrix + s.linear(x).view(-1, 6)).view(4, 4, 6) + s.other(x)
    turned = (x.transpose(0, 1).reshape(-1, 6) @ s.matrix).view(4, 4, 6) + s.other(x)
    return y.tanh() + z.relu() * turned.tanh()


_net(
    between_views,
    (4, 4, 6),
    parts=lambda: {
        "linear": nn.Linear(6, 6),
        "other": nn.Linear(6, 6),
        "last": nn.Linear(6, 6),
        "matrix": _weight(6, 6),
        "bias": _weight(6),
    },
)


def surrounded(s: Any, x: Tensor) -> Tensor:
    y = s.three(x) + s.norm(s.one(x)) + s.five(x) + x
    z = s.small(x) + s.other(x)
    w = s.flat(F.pad(x, (2, 1, 0, 0), "circular")) + x
    v = s.small(x.tanh()) + s.large(x)
    return y.tanh() + z.relu() + w.relu() + v.relu()


_net(
    surrounded,
    (2, 4, 7, 7),
    parts=lambda: {
        "one": nn.Conv2d(4, 4, 1),
        "norm": nn.BatchNorm2d(4),
        "three": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        "five": nn.Conv2d(4, 4, 5, padding=2, padding_mode="reflect", bias=False),
        "small": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        "large": nn.Conv2d(4, 4, 5, padding=2, padding_mode="reflect"),
        "other": nn.Conv2d(4, 4, 5, padding=2, padding_mode="replicate", bias=False),
        "flat": nn.Conv2d(4, 4, (1, 4)),
    },
)


def begins_alike(s: Any, x: Tensor) -> Tensor:
    y = s.a(x.clamp(-1, 1)) + s.b(x.clamp(-1, 1)) + s.b(x.clamp(-2, 2))
    return y * F.dropout(x, 0.0, True)


_net(
    begins_alike,
    (2, 4, 7, 6),
    parts=lambda: {"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 1)},
)


def rescaled_norms(s: Any, x: Tensor) -> Tensor:
    y = (s.groups(x) * s.gamma + s.beta).relu() + (s.each(x) * s.gamma + s.beta).tanh()
    z = s.last(y) * s.vector + s.vector
    again = s.groups(y)
    z = z + (again * s.gamma).relu() + again.exp()
    return z.relu() * (s.bare(y) * 0.5 - 2.0).tanh()


_net(
    rescaled_norms,
    (2, 4, 7, 6),
    parts=lambda: {
        "groups": nn.GroupNorm(2, 4),
        "each": nn.InstanceNorm2d(4, affine=True),
        "last": nn.LayerNorm((7, 6)),
        "bare": nn.GroupNorm(4, 4, affine=False),
        "gamma": _weight(4, 1, 1),
        "beta": _weight(4, 1, 1),
        "vector": _weight(6),
    },
)


def tables(s: Any, x: Tensor) -> Tensor:
    places = (x.abs() * 4).long() % 9
    y = s.words(places) * s.gamma + s.gamma - F.embedding(places, s.down.t()) @ s.up
    return y.relu() + s.square(places) * 2.0


_net(
    tables,
    (4, 7),
    parts=lambda: {
        "words": nn.Embedding(9, 9),
        "square": nn.Embedding(9, 9),
        "gamma": _weight(9),
        "down": _weight(2, 9),
        "up": _weight(2, 9),
    },
)


def multiplied(s: Any, x: Tensor) -> Tensor:
    y = torch.einsum("bnc,oc->bno", x, s.matrix) + torch.einsum("co,bnc->bno", s.matrix, x) + s.linear(x)
    z = torch.baddbmm(s.shift, s.linear(y.tanh()), x.mT) * 0.5
    w = torch.bmm(s.linear(y.relu()), x.mT) * 0.25
    return z.softmax(-1) + w.softmax(-1) + (s.mix @ y.sigmoid() * 2.0).mean()


_net(
    multiplied,
    (2, 5, 6),
    parts=lambda: {
        "matrix": _weight(6, 6),
        "linear": nn.Linear(6, 6),
        "shift": _weight(5, 5),
        "mix": _weight(5, 5),
    },
)


def copied(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    return y + (y * s.alpha).sin() ** 2


_net(copied, (2, 1, 40), parts=lambda: {"conv": nn.Conv1d(1, 8, 7, padding=3), "alpha": _weight(1, 8, 1)})


def bypassed(s: Any, x: Tensor) -> Tensor:
    """A norm that one reader needs, and that goes behind the padding for another one."""
    y = s.norm(s.conv(x))
    z = s.one(s.again(y))
    return (s.padded(y) + s.far(z)).tanh() * s.wide(z)


_net(
    bypassed,
    (2, 2, 6, 5),
    parts=lambda: {
        "conv": nn.Conv2d(2, 1, 3, padding=1),
        "norm": nn.BatchNorm2d(1),
        "again": nn.BatchNorm2d(1),
        "one": nn.Conv2d(1, 1, 1),
        "padded": nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        "far": nn.Conv2d(1, 1, 1),
        "wide": nn.Conv2d(1, 1, (1, 3), padding=(0, 1)),
    },
)


def with_zeros(s: Any, x: Tensor) -> Tensor:
    y = s.a(x) + torch.zeros_like(x.tanh()) - s.b(x) + x.new_full(x.shape, 1.0)
    return y.relu() + s.a(torch.ones_like(x) - x)


_net(with_zeros, (2, 5, 6), parts=lambda: {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})


def shuffled(s: Any, x: Tensor) -> Tensor:
    y = s.norm(x.relu()).view(2, 2, 2, 5, 5).transpose(1, 2).reshape(2, 4, 5, 5)
    return s.conv(y).flatten(1) + s.linear(s.norm(x.tanh()).flatten(1))


_net(
    shuffled,
    (2, 4, 5, 5),
    parts=lambda: {"norm": nn.BatchNorm2d(4), "conv": nn.Conv2d(4, 4, 1), "linear": nn.Linear(100, 100)},
)


def mean_of_channels(s: Any, x: Tensor) -> Tensor:
    samples, _, height, width = x.shape
    return s.conv((x * s.scale).reshape(samples, 2, 2, height, width).mean(2)).relu()


_net(
    mean_of_channels,
    (2, 4, 5, 6),
    parts=lambda: {"scale": _weight(4, 1, 1), "conv": nn.Conv2d(2, 3, 3)},
)


def pooled_along_channels(s: Any, x: Tensor) -> Tensor:
    """The pooling is over the axis that the scale and the layer take for the channels'."""
    return s.linear(F.avg_pool1d(x * s.scale, 3, 1, 1, count_include_pad=False)).relu()


_net(
    pooled_along_channels,
    (2, 5, 6),
    parts=lambda: {"scale": _weight(6), "linear": nn.Linear(6, 3)},
)


def depthwise(s: Any, x: Tensor) -> Tensor:
    return s.norm(s.conv(x)).relu()


_net(
    depthwise,
    (2, 8, 7, 6),
    parts=lambda: {
        "conv": nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
        "norm": nn.BatchNorm2d(8),
    },
)
