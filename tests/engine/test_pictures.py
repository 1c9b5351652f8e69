"""Padding by a constant and concatenations, however they are spelt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fixtures.blocks.dbb import DiverseBranchBlock
from reparamkit.capture.export import capture
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, assert_same, noise, randomised

Spelling = Callable[[Tensor, Tensor], Tensor]
_MIDDLE = (slice(None), slice(None), slice(1, -1), slice(1, -1))


class Around(nn.Module):
    """A convolution and a norm, a border by `spelling(result, shift)`, and a convolution.

    The shift is what the first two make of zero: (channels,).
    """

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.first, self.norm = nn.Conv2d(4, 7, 1, bias=False), nn.BatchNorm2d(7)
        self.last = nn.Conv2d(7, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shift = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.last(self.spelling(self.norm(self.first(x)), shift))


def _whole(y: Tensor) -> tuple[int, int, int, int]:
    return y.shape[0], y.shape[1], y.shape[2] + 2, y.shape[3] + 2


def side_by_side(y: Tensor, shift: Tensor) -> Tensor:
    z, fill = F.pad(y, (1, 1, 1, 1)), shift.view(1, -1, 1, 1)
    z[:, :, 0:1, :], z[:, :, -1:, :], z[:, :, :, 0:1], z[:, :, :, -1:] = fill, fill, fill, fill
    return z


def row_by_row(y: Tensor, shift: Tensor) -> Tensor:
    z, fill = F.pad(y, (1, 1, 1, 1)), shift.view(-1, 1)
    z[:, :, 0], z[:, :, -1], z[..., 0], z[..., -1] = fill, fill, fill, fill
    return z


def canvas(y: Tensor, shift: Tensor) -> Tensor:
    z = shift.view(1, -1, 1, 1).expand(_whole(y)).clone()
    z[_MIDDLE] = y
    return z


def canvas_by_sizes(y: Tensor, shift: Tensor) -> Tensor:
    h, w = y.shape[2:]
    z = shift.view(-1, 1, 1).repeat(y.shape[0], 1, h + 2, w + 2)
    z[:, :, 1 : h + 1, 1 : w + 1] = y
    return z


def zeros_and_shift(y: Tensor, shift: Tensor) -> Tensor:
    z = y.new_zeros(_whole(y)) + shift.view(1, -1, 1, 1)
    z[_MIDDLE] = y
    return z


def empty_and_filled(y: Tensor, shift: Tensor) -> Tensor:
    z = y.new_empty(_whole(y))
    z[:] = shift.view(1, -1, 1, 1)
    z[_MIDDLE] = y
    return z


def concatenated(y: Tensor, shift: Tensor) -> Tensor:
    n, c, h, w = y.shape
    row, column = shift.view(1, -1, 1, 1).expand(n, c, 1, w), shift.view(1, -1, 1, 1).expand(n, c, h + 2, 1)
    return torch.cat([column, torch.cat([row, y, row], 2), column], 3)


def one_axis_after_the_other(y: Tensor, shift: Tensor) -> Tensor:
    fill = shift.view(1, -1, 1, 1)
    z = F.pad(y, (0, 0, 1, 1))
    z[:, :, :1], z[:, :, -1:] = fill, fill
    z = F.pad(z, (1, 1))
    z[..., :1], z[..., -1:] = fill, fill
    return z


RIGHT: list[Spelling] = [
    side_by_side,
    row_by_row,
    canvas,
    canvas_by_sizes,
    zeros_and_shift,
    empty_and_filled,
    concatenated,
    one_axis_after_the_other,
]


def three_sides(y: Tensor, shift: Tensor) -> Tensor:
    z, fill = F.pad(y, (1, 1, 1, 1)), shift.view(1, -1, 1, 1)
    z[:, :, 0:1, :], z[:, :, -1:, :], z[:, :, :, 0:1] = fill, fill, fill
    return z


def one_side_otherwise(y: Tensor, shift: Tensor) -> Tensor:
    z = side_by_side(y, shift)
    z[:, :, :, 0:1] = 2 * shift.view(1, -1, 1, 1)
    return z


def beyond_the_border(y: Tensor, shift: Tensor) -> Tensor:
    z = side_by_side(y, shift)
    z[:, :, 0:2, :] = shift.view(1, -1, 1, 1)
    return z


def a_corner_too_many(y: Tensor, shift: Tensor) -> Tensor:
    z = side_by_side(y, shift)
    z[:, :, 1:2, 1:2] = shift.view(1, -1, 1, 1)
    return z


def every_second_row(y: Tensor, shift: Tensor) -> Tensor:
    z, fill = side_by_side(y, shift), shift.view(1, -1, 1, 1)
    z[:, :, ::2] = fill
    return z


def along_the_width(y: Tensor, shift: Tensor) -> Tensor:
    """As many columns as channels: the constants differ from column to column."""
    z = shift.repeat(*_whole(y)[:3], 2)[..., : y.shape[3] + 2].clone()
    z[_MIDDLE] = y
    return z


def on_another_value(y: Tensor, shift: Tensor) -> Tensor:
    z = F.interpolate(y, scale_factor=2.0)[:, :, : y.shape[2] + 2, : y.shape[3] + 2].clone()
    z[_MIDDLE] = y
    z[:, :, :1] = shift.view(1, -1, 1, 1)
    return z


def moved(y: Tensor, shift: Tensor) -> Tensor:
    """The result is shifted by one, and its last row lost."""
    z = shift.view(1, -1, 1, 1).expand(_whole(y)).clone()
    z[:, :, 1:-1, 1:-1] = torch.cat([y[:, :, 1:], y[:, :, :1]], 2)
    return z


WRONG: list[Spelling] = [
    three_sides,
    one_side_otherwise,
    beyond_the_border,
    a_corner_too_many,
    every_second_row,
    along_the_width,
    on_another_value,
    moved,
]


def _left(net: nn.Module, *shapes: tuple[int, ...], dynamic: Any = False) -> dict[str, int]:
    """The operators that are left; the fold agrees with the network at all the shapes."""
    return _census(randomised(net), *shapes, dynamic=dynamic)


def _census(net: nn.Module, *shapes: tuple[int, ...], dynamic: Any = False) -> dict[str, int]:
    net = net.double().eval()
    outcome = fold_program(capture(net, (noise(*shapes[0]),), dynamic=dynamic))
    assert outcome.undone == ()
    for shape in shapes if dynamic else shapes[:1]:
        assert_same(net(noise(*shape)), outcome.module(noise(*shape)))
    return census(outcome.module.graph, dict(outcome.module.named_modules()))


@pytest.mark.diagonal(4)
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("spelling", RIGHT, ids=lambda s: s.__name__)
def test_a_border_of_the_shift_is_one_convolution(spelling: Spelling, dynamic: Any) -> None:
    shapes = [(2, 4, 9, 7), (5, 4, 6, 11), (3, 4, 1, 2)]
    assert _left(Around(spelling), *shapes, dynamic=dynamic) == {"conv2d": 1}


@pytest.mark.diagonal(4)
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("spelling", WRONG, ids=lambda s: s.__name__)
def test_what_is_no_border_of_the_shift_stays(spelling: Spelling, dynamic: Any) -> None:
    assert _left(Around(spelling), (2, 4, 9, 5), (2, 4, 6, 11), dynamic=dynamic)["conv2d"] == 2


def _unshifted(norm: Any, channels: slice) -> None:
    """A norm as it is before training, in these channels."""
    with torch.no_grad():
        norm.running_mean[channels] = 0.0
        norm.bias[channels] = 0.0


class Bordered(nn.Module):
    """A convolution and a norm with its own shift around it."""

    def __init__(self, inputs: int, outputs: int, spelling: Spelling = side_by_side) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shift = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.spelling(norm(self.conv(x)), shift)


ALL, SOME, NONE = slice(None), slice(1, 3), slice(0)


@pytest.mark.diagonal(4)
@pytest.mark.parametrize("channels", [ALL, SOME], ids=["all", "some"])
@pytest.mark.parametrize("spelling", RIGHT, ids=lambda s: s.__name__)
def test_a_border_of_a_shift_of_zero_is_one_convolution(spelling: Spelling, channels: slice) -> None:
    net = Net(lambda s, x: s.last(s.first(x)), first=Bordered(4, 7, spelling), last=nn.Conv2d(7, 5, 3))
    _unshifted(randomised(net).first.norm, channels)
    assert _census(net, (2, 4, 9, 7), (3, 4, 1, 2), dynamic="auto") == {"conv2d": 1}


@pytest.mark.parametrize("second", [ALL, SOME, NONE], ids=["all", "some", "none"])
@pytest.mark.parametrize("first", [ALL, NONE], ids=["all", "none"])
@pytest.mark.parametrize("pooled", [False, True], ids=["convolved", "pooled"])
def test_branches_with_and_without_a_shift_are_one_convolution(
    first: slice, second: slice, pooled: bool
) -> None:
    net = Net(
        lambda s, x: s.wide(s.one(x)) + s.last(s.two(x)) + s.three(x),
        one=Bordered(3, 4),
        wide=nn.Conv2d(4, 5, 3),
        two=Bordered(3, 5),
        last=nn.Sequential(nn.AvgPool2d(3, 1), nn.BatchNorm2d(5)) if pooled else nn.Conv2d(5, 5, 3),
        three=nn.Conv2d(3, 5, 3, padding=1),
    )
    randomised(net)
    _unshifted(net.one.norm, first)
    _unshifted(net.two.norm, second)
    assert _census(net, (2, 3, 8, 9), (1, 3, 3, 4), dynamic="auto") == {"conv2d": 1}


@pytest.mark.parametrize("inner", [ALL, NONE], ids=["all", "none"])
@pytest.mark.parametrize("outer", [ALL, NONE], ids=["all", "none"])
def test_a_border_around_a_border(inner: slice, outer: slice) -> None:
    """The outer one goes on as the inner one did, if its norm makes nothing else of the inner one's shift."""
    net = Net(lambda s, x: s.last(s.second(s.first(x))), first=Bordered(3, 4), last=nn.Conv2d(4, 5, 5))
    net.second = Bordered(4, 4)
    randomised(net)
    _unshifted(net.first.norm, inner)
    _unshifted(net.second.norm, outer)
    convolutions = 1 if inner is ALL else 2
    assert _census(net, (2, 3, 8, 9), (1, 3, 3, 4), dynamic="auto")["conv2d"] == convolutions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_a_diverse_branch_block_before_training_is_one_convolution(stride: int, groups: int) -> None:
    block = DiverseBranchBlock(8, 8, 3, stride=stride, groups=groups).double().eval()
    assert _census(block, (2, 8, 9, 7), (1, 8, 4, 6), dynamic="auto") == {"conv2d": 1}


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_zeros_of_a_tensor_around_a_shift_stay_zeros(dynamic: Any) -> None:
    """The border is the last layer's own padding; what it surrounds is not."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return s.last(side_by_side(s.first(x), s.zeros))

    net = Net(forward, first=nn.Conv2d(4, 4, 1), last=nn.Conv2d(4, 4, 3), zeros=torch.zeros(4))
    assert _left(net, (2, 4, 9, 7), (1, 4, 5, 6), dynamic=dynamic) == {"conv2d": 2}


def test_zeros_of_a_tensor_around_a_sum() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        return side_by_side(s.one(x) + s.two(y), s.zeros) + s.three(x) + s.four(y)

    parts = {name: nn.Conv2d(3, 3, 1, bias=False) for name in ("one", "two")}
    wide = {name: nn.Conv2d(3, 3, 3, padding=2) for name in ("three", "four")}
    net = Net(forward, **parts, **wide, zeros=torch.zeros(3))
    left = _left(net, (2, 3, 8, 9), (1, 3, 5, 4), dynamic="auto")
    assert left == {"tanh": 1, "conv2d": 2, "add": 1}


@pytest.mark.parametrize("value", [0.25, -3.0])
def test_padding_by_a_number(value: float) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x) * 0.5 + value
        return s.last(F.pad(y, (0, 0, 1, 1), value=value))

    net = Net(forward, first=nn.Conv2d(3, 4, 1, bias=False), last=nn.Conv2d(4, 5, (3, 2)))
    assert _left(net, (2, 3, 8, 9)) == {"conv2d": 1}


def test_padding_by_another_number_stays() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return s.last(F.pad(s.first(x) * 0.5 + 0.25, (1, 1, 1, 1), value=0.5))

    net = Net(forward, first=nn.Conv2d(3, 4, 1, bias=False), last=nn.Conv2d(4, 5, 3))
    assert _left(net, (2, 3, 8, 9)) == {"conv2d": 2, "pad": 1}


def test_a_canvas_of_zeros_is_zero_padding() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x)
        z = torch.zeros(_whole(y), dtype=y.dtype)
        z[_MIDDLE] = y
        return s.last(z)

    net = Net(forward, first=nn.Conv2d(4, 4, 3), last=nn.Conv2d(4, 4, 3))
    assert _left(net, (2, 4, 9, 7), (1, 4, 5, 6), dynamic="auto") == {"conv2d": 2}


@pytest.mark.parametrize("dims", [1, 3])
def test_a_canvas_of_other_axes(dims: int) -> None:
    conv = nn.Conv1d if dims == 1 else nn.Conv3d

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x)
        fill = s.first.bias.view(1, -1, *(1,) * dims)
        z = fill.expand(*y.shape[:2], *(n + 2 for n in y.shape[2:])).clone()
        z[(slice(None), slice(None), *(slice(1, -1),) * dims)] = y
        return s.last(z)

    net = Net(forward, first=conv(2, 3, 1), last=conv(3, 2, 3))
    shapes = [(2, 2, *(6,) * dims), (1, 2, *(4,) * dims)]
    assert _left(net, *shapes, dynamic="auto") == {f"conv{dims}d": 1}


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_buffer_that_branches_are_written_into_is_their_concatenation(dynamic: Any) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        z = x.new_zeros(x.shape[0], 6, *x.shape[2:])
        z[:, :4] = s.one(x)
        z[:, 4:] = s.two(x)
        return s.norm(z)

    parts = {"one": nn.Conv2d(3, 4, 1), "two": nn.Conv2d(3, 2, 3, padding=1), "norm": nn.BatchNorm2d(6)}
    assert _left(Net(forward, **parts), (2, 3, 8, 9), (1, 3, 5, 4), dynamic=dynamic) == {"conv2d": 1}


def test_a_buffer_that_is_not_filled_stays() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        z = x.new_zeros(x.shape[0], 7, *x.shape[2:])
        z[:, :4] = s.one(x)
        z[:, 5:] = s.two(x)
        return z

    layers = _left(Net(forward, one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(3, 2, 1)), (2, 3, 8, 9))
    assert layers["slice_scatter"] == 2


def test_a_layer_whose_output_is_written_into_keeps_its_channels() -> None:
    """What the copy means is the other layer's output, although it reads the first one's."""

    def forward(s: Any, x: Tensor) -> Tensor:
        z = s.one(x).clone()
        z[:, :2] = s.two(x)
        return s.norm(z[:, :2]) + s.norm(z[:, 2:])

    parts = {"one": nn.Conv2d(3, 4, 3), "two": nn.Conv2d(3, 2, 3), "norm": nn.BatchNorm2d(2)}
    _left(Net(forward, **parts), (2, 3, 8, 9), (1, 3, 5, 4), dynamic="auto")


def test_a_canvas_of_another_type_rounds_what_is_written_into_it() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x)
        z = torch.zeros(_whole(y), dtype=torch.float32)
        z[_MIDDLE] = y
        return s.last(z.double())

    layers = _left(Net(forward, first=nn.Conv2d(4, 4, 3), last=nn.Conv2d(4, 4, 3)), (2, 4, 9, 7))
    assert (layers["conv2d"], layers["_to_copy"]) == (2, 1)


def test_a_result_that_was_no_view_of_another_stays_none() -> None:
    """Without its norm the one piece would be a view of what the other one is a view of."""

    def forward(s: Any, x: Tensor) -> Any:
        first, second = s.conv(x).chunk(2, 1)
        return s.norm(first)[:, :, 1:], second

    layers = _left(Net(forward, conv=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(4)), (2, 3, 8, 9))
    assert layers.get("batch_norm", 0) + layers.get("mul", 0) + layers["conv2d"] >= 2


def _written(y: Tensor) -> Tensor:
    z = y.new_empty(y.shape)
    z[:] = y
    return z


BETWEEN: dict[str, tuple[Callable[[Any, Tensor], Any], dict[str, int]]] = {
    "a mean": (
        lambda s, x: s.linear(_written(s.norm(x.relu())).mean((2, 3))),
        {"relu": 1, "mean": 1, "linear": 1},
    ),
    "tokens": (
        lambda s, x: s.linear((_written(s.norm(x.relu())) * s.gain).flatten(2).transpose(1, 2)),
        {"relu": 1, "reshape": 1, "transpose": 1, "linear": 1},
    ),
    "pieces": (
        lambda s, x: [s.conv(piece) for piece in _written(s.norm(x.relu())).chunk(2, 1)],
        {"relu": 1, "split": 1, "conv2d": 2},
    ),
    "views": (
        lambda s, x: _written(s.square(x.flatten(0, 2))).view(x.shape) + s.other(x),
        {"linear": 1},
    ),
}


@pytest.mark.diagonal
@pytest.mark.parametrize("dynamic", [False, "auto"])
@pytest.mark.parametrize("name", BETWEEN)
def test_a_copy_that_is_written_hinders_nothing_that_passes_it(name: str, dynamic: Any) -> None:
    """What is passed over has to run in the proof, with the canvas that it is written into."""
    forward, expected = BETWEEN[name]
    parts: dict[str, nn.Module | Tensor] = {
        "norm": nn.BatchNorm2d(4),
        "linear": nn.Linear(4, 3),
        "gain": noise(4, 1, 1),
        "conv": nn.Conv2d(2, 3, 1),
        "square": nn.Linear(6, 6),
        "other": nn.Linear(6, 6),
    }
    assert _left(Net(forward, **parts), (2, 4, 5, 6), (3, 4, 7, 6), dynamic=dynamic) == expected
