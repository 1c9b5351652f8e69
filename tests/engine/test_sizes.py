"""Sizes other than the example's, and odd operands: answered as the original does, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import reparamkit as rk
from reparamkit.capture.export import capture
from reparamkit.capture.sizes import SizeGuards
from reparamkit.engine import cost
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, fold, noise, randomised

BOUND_TO_A_SIZE: dict[str, Callable[..., Any]] = {
    "a branch on the height": lambda s, x: s.conv(x) * (2 if x.shape[2] > 10 else 1),
    "a pool over the whole map": lambda s, x: F.avg_pool2d(s.conv(x), x.shape[2:]),
    "a branch on the height's logarithm": lambda s, x: s.conv(x) * (2 if math.log2(x.shape[2]) > 4 else 1),
    "a branch on a fraction": lambda s, x: s.conv(x) * (2 if x.shape[2] * 1.3 > 20 else 1),
    "a branch on a root": lambda s, x: s.conv(x) * (2 if x.shape[2] ** 0.5 > 4 else 1),
    "a branch on a ceiling": lambda s, x: s.conv(x) * (2 if math.ceil(x.shape[2] / 3) > 5 else 1),
    "a branch on the larger": lambda s, x: s.conv(x) * (2 if max(x.shape[2], x.shape[3]) > 9 else 1),
    "a number of its height": lambda s, x: s.conv(x) * int(x.shape[2] * 1.5),
    "a rounded number": lambda s, x: s.conv(x) * round(x.shape[2] / 3),
    "a text of it": lambda s, x: s.conv(x) * int(str(x.shape[2])),
    "a loop over it": lambda s, x: s.conv(x) * sum(i for i in range(x.shape[2])),
    "a sum over the height": lambda s, x: s.conv(x) / x.shape[2] if x.shape[2] % 2 else s.conv(x),
}


@pytest.mark.parametrize("name", BOUND_TO_A_SIZE)
@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_size_that_the_capture_left_out_is_answered_rightly_or_refused(name: str, dynamic: Any) -> None:
    """torch.export's own module raises there; a folded module must not answer what the original does not."""
    done = fold(
        Net(BOUND_TO_A_SIZE[name], conv=nn.Conv2d(3, 4, 3, padding=1)), noise(2, 3, 8, 8), dynamic=dynamic
    )
    done.compare(noise(2, 3, 8, 8))
    try:
        done.module(noise(2, 3, 17, 16))
    except (RuntimeError, ValueError, AssertionError):
        return
    done.compare(noise(2, 3, 17, 16))


@pytest.mark.parametrize(
    "places",
    [
        lambda x: torch.arange(1.0, x.shape[2]),
        lambda x: torch.arange(x.shape[2], dtype=torch.float32),
        lambda x: torch.arange(0.5, x.shape[2] + 1, 2.0),
        lambda x: torch.linspace(-1.0, 1.0, x.shape[2]),
    ],
    ids=["start", "end", "step", "linspace"],
)
def test_a_range_as_long_as_a_free_size(places: Callable[[Tensor], Tensor]) -> None:
    """A range has a start and an end as a slice has, and its first argument may be a number."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.norm(net.conv(x)) + places(x).sum()

    net = randomised(Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4)))
    folded = rk.fold(net, noise(2, 3, 8, 9, dtype=torch.float32))
    assert (folded.before["batch_norm"], folded.after.get("batch_norm", 0)) == (1, 0)
    assert folded.equivalence is not None
    assert folded.equivalence.passed


def test_a_fold_whose_sources_depend_on_each_other_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5·x + v with v = x[:]: drawn independently, the two sources deny what the network grants."""
    monkeypatch.setattr(cost, "KAPPA", 0.0)
    net = Net(lambda s, x: s.layer(((y := x[:]) * 0.5 + y).permute(0, 2, 3, 1)), layer=nn.Linear(4, 2))
    done = fold(randomised(net), noise(2, 4, 8, 5))
    done.compare(noise(2, 4, 8, 5))
    assert "float64 check failed" not in done.reasons()


@pytest.mark.parametrize("cut", ["9:", "5:-5", ":-9"])
def test_a_crop_by_more_than_there_is_stays_empty(cut: str) -> None:
    """torch answers with an empty tensor."""
    start, _, stop = cut.partition(":")
    taken = slice(int(start or 0), int(stop) if stop else None)
    net = Net(lambda s, x: s.conv(x)[:, :, taken], conv=nn.Conv2d(3, 4, 1))
    fold(randomised(net), noise(2, 3, 8, 8)).compare(noise(2, 3, 8, 8))


def test_a_size_at_which_a_crop_would_be_empty_is_ruled_out_as_by_the_capture() -> None:
    net = Net(lambda s, x: s.conv(x)[:, :, 3:-3], conv=nn.Conv2d(3, 4, 1))
    done = fold(randomised(net), noise(2, 3, 8, 8), dynamic="auto")
    done.compare(noise(2, 3, 8, 8))
    done.compare(noise(2, 3, 9, 7))
    with pytest.raises(ValueError, match=r"captured for other sizes: it assumes x.shape\[2\] >= 6"):
        done.module(noise(2, 3, 5, 8))


def test_a_layer_that_turns_out_to_be_dead_does_not_end_the_fold() -> None:
    net = Net(lambda s, x: s.norm((x * s.scale).flatten(0, 1)), norm=nn.BatchNorm1d(6), scale=noise(6))
    done = fold(randomised(net), noise(2, 5, 6), dynamic="auto")
    done.compare(noise(2, 5, 6))
    done.compare(noise(3, 7, 6))


def test_a_division_by_zero_is_what_it_was() -> None:
    net = Net(lambda s, x: ((x.relu() + 1) / 0).clamp(max=1.0))
    fold(net, noise(2, 3)).compare(noise(2, 3))


def test_a_linear_layer_with_a_vector_for_a_weight() -> None:
    net = Net(lambda s, x: F.linear(x * 2, s.weight), weight=nn.Parameter(noise(3)))
    fold(net, noise(2, 3)).compare(noise(2, 3))


def test_a_size_that_only_a_reshape_fixes_is_answered_rightly_or_refused() -> None:
    """Found by the random networks: the bound is on ⌊(n + 1)/2⌋ + 1, not on the size n itself."""
    net = Net(lambda s, x: s.conv(x).reshape(-1, 2, 3).relu(), conv=nn.Conv1d(4, 2, 1, stride=2, padding=1))
    done = fold(randomised(net), noise(2, 4, 4), dynamic="auto")
    done.compare(noise(2, 4, 4))
    try:
        done.module(noise(3, 4, 6))
    except (RuntimeError, ValueError, AssertionError):
        return
    done.compare(noise(3, 4, 6))


def test_an_argument_that_is_no_tensor_is_settled() -> None:
    """The graph has the number of the capture in it; another one must not be ignored."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, times: int, mode: str = "plain") -> Tensor:
            scaled: Tensor = self.conv(x) * times
            return scaled.relu() if mode == "relu" else scaled

    model = Scaled().eval()
    x = torch.randn(1, 3, 4, 4)
    folded = rk.fold(model, {"x": x, "times": 2, "mode": "relu"}).module
    torch.testing.assert_close(folded(x, 2, "relu"), model(x, 2, "relu"))
    torch.testing.assert_close(folded(x=x, times=2, mode="relu"), model(x, 2, "relu"))
    with pytest.raises(ValueError, match=r"captured with times = 2, .* was given 3; fold"):
        folded(x, 3, "relu")
    with pytest.raises(ValueError, match=r"captured with mode = 'relu'.* given 'plain'"):
        folded(x, 2, "plain")


def test_an_assumption_that_divides_by_zero_does_not_hold() -> None:
    guards = SizeGuards([(0, 1)], ["the width"], ["n0 >= 2", "n0 % (n0 - 3) == 0"])
    guards(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"it assumes the width % \(the width - 3\) == 0, and was given"):
        guards(torch.zeros(1, 3))


def test_a_size_that_the_network_settles_is_not_free_in_a_file_either(tmp_path: Path) -> None:
    net = randomised(Net(BOUND_TO_A_SIZE["a number of its height"], conv=nn.Conv2d(3, 4, 3, padding=1)))
    folded = rk.fold(net.float().eval(), noise(2, 3, 8, 8).float())
    assert any(
        "axis 2 of input 0 is not free: the network settles it by trunc(1.5 *" in n for n in folded.notes
    )
    folded.save(tmp_path / "net.onnx")
    (given,) = onnx.load(tmp_path / "net.onnx").graph.input
    assert [bool(d.dim_param) for d in given.type.tensor_type.shape.dim] == [True, False, False, True]
    with pytest.raises(
        ValueError, match=r"it assumes trunc\(1.5 \* float\(.*shape\[2\]\)\) == 12, and was given"
    ):
        folded.module(noise(2, 3, 17, 8).float())
    folded.module(noise(1, 3, 8, 17).float())


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(
    "name", ["a branch on the height", "a branch on a fraction", "a branch on the larger"]
)
def test_a_file_that_cannot_refuse_a_size_has_none_free_that_matters(name: str, tmp_path: Path) -> None:
    """The folded module and a .pt2 refuse a height of 17; an ONNX file would answer it, and wrongly."""
    net = randomised(Net(BOUND_TO_A_SIZE[name], conv=nn.Conv2d(3, 4, 3, padding=1))).float().eval()
    folded = rk.fold(net, noise(2, 3, 8, 8).float())
    onnx_file, _ = folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    assert any(
        "the height is fixed, because the file cannot refuse a size: at a size of" in n
        for n in onnx_file.notes
    )
    (given,) = onnx.load(tmp_path / "net.onnx").graph.input
    free = [bool(d.dim_param) for d in given.type.tensor_type.shape.dim]
    assert free == [True, False, False, name != "a branch on the larger"]
    with pytest.raises(ValueError, match="captured for other sizes"):
        folded.module(noise(2, 3, 17, 8).float())
    torch.testing.assert_close(folded.module(noise(2, 3, 9, 8).float()), net(noise(2, 3, 9, 8).float()))


@pytest.mark.slow
def test_sizes_that_no_assumption_speaks_of_stay_free_in_files(tmp_path: Path) -> None:
    net = Net(lambda s, x: s.conv(x)[:, :, 3:-3], conv=nn.Conv2d(3, 4, 1)).eval()
    (saved,) = rk.fold(net, torch.randn(2, 3, 8, 8)).save(tmp_path / "net.onnx")
    assert saved.notes == ()
    (given,) = onnx.load(tmp_path / "net.onnx").graph.input
    assert [bool(d.dim_param) for d in given.type.tensor_type.shape.dim] == [True, False, True, True]


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: s.conv(x) * int(x.shape[0] * 1.5 + 0.5),
        lambda s, x: s.conv(x) * (2 if x.shape[0] & 4 else 1),
    ],
    ids=["a number of it", "bits of it"],
)
def test_a_batch_of_one_that_matters_is_captured_as_such(function: Callable[..., Any]) -> None:
    """Captured with a batch of two, a network that settles its batch size would refuse its own example."""
    net = Net(function, conv=nn.Conv2d(3, 4, 1))
    folded = rk.fold(net.eval(), torch.randn(1, 3, 8, 8))
    torch.testing.assert_close(folded.module(x := torch.randn(1, 3, 8, 8)), net(x))
    with pytest.raises(ValueError, match="captured for other sizes"):
        folded.module(torch.randn(2, 3, 8, 8))


LEVELS: dict[str, Callable[..., Any]] = {
    "a convolution": lambda s, x: s.conv(x),
    "its only row squeezed away": lambda s, x: x.squeeze(2),
    "a product of its places": lambda s, x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "broadcast rows": lambda s, x: s.conv(x) + x.mean(2, keepdim=True) * x[:, :, :1],
    "a branch on it": lambda s, x: x * 2 if x.shape[2] == 1 else s.conv(x),
    "a branch on another of one": lambda s, x: x if x.shape[3] == 1 else s.conv(x),
    "a branch on equal sides": lambda s, x: x * 2 if x.shape[2] == x.shape[3] else s.conv(x),
}
LEFT_FREE = ("a convolution", "its only row squeezed away", "broadcast rows")


@pytest.mark.diagonal
@pytest.mark.parametrize("example", [(2, 3, 8, 16), (1, 3, 15, 8)], ids=str)
@pytest.mark.parametrize("name", LEVELS)
def test_a_size_of_one_inside_the_example_settles_nothing(name: str, example: tuple[int, ...]) -> None:
    """A map that is one pixel high in the example only, as the last of many networks on a small image is."""
    layers = {"stem": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "conv": nn.Conv2d(4, 4, 1)}
    net = Net(lambda s, x: LEVELS[name](s, F.avg_pool2d(s.norm(s.stem(x)), 8)), **layers)
    done = fold(randomised(net), noise(*example), dynamic="auto")
    done.compare(noise(*example))
    refused = 0
    for size in [(1, 8, 8), (3, 16, 24), (2, 9, 15), (1, 16, 8), (2, 8, 16), (1, 24, 24), (2, 31, 17)]:
        x = noise(size[0], 3, *size[1:])
        try:
            done.module(x)
        except ValueError:
            refused += 1
        else:
            done.compare(x)
    assert refused == 0 or name not in LEFT_FREE


@pytest.mark.parametrize("example", [True, False], ids=["with its example", "without"])
def test_an_exported_program_keeps_its_assumptions(example: bool) -> None:
    net = Net(BOUND_TO_A_SIZE["a branch on the height"], conv=nn.Conv2d(3, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    exported = torch.export.export(net, (x,), dynamic_shapes=({2: Dim.AUTO, 3: Dim.AUTO},), strict=False)
    if not example:
        exported._example_inputs = None
    module = fold_program(capture(exported, (x,))).module
    torch.testing.assert_close(module(other := torch.randn(2, 3, 7, 19)), net(other))
    with pytest.raises(ValueError, match=r"captured for other sizes: it assumes x.shape\[2\] <= 10"):
        module(torch.randn(2, 3, 17, 8))


@pytest.mark.parametrize("guard", ["magic(L['x'].size()[3]) == 3", "L['x'].size()[L['x'].size()[3]] == 3"])
def test_what_is_not_understood_of_sizes_holds_them(guard: str) -> None:
    exported = torch.export.export(
        nn.Conv2d(3, 4, 1),
        (torch.randn(2, 3, 8, 8),),
        dynamic_shapes=({2: Dim.AUTO, 3: Dim.AUTO},),
        strict=False,
    )
    exported._guards_code = [*exported._guards_code, guard.replace("'x'", "'input'")]
    module = fold_program(capture(exported, (torch.randn(2, 3, 8, 8),))).module
    module(torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="captured for other sizes"):
        module(torch.randn(2, 3, 8, 9))
