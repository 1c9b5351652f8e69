"""Transposed convolutions: what they take in, what they must not, and that the right axis is scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.algebra.transposed import transposed
from reparamkit.engine import cost, proof_sizes
from reparamkit.engine.relative_error import BAR
from tests.fixtures.table import operators
from tests.nets import Folded, Net, PairNet, fold, fold_and_compare, noise, randomised

LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "2, stride 2": {"kernel_size": 2, "stride": 2},
    "4, stride 2, padding 1": {"kernel_size": 4, "stride": 2, "padding": 1},
    "3, stride 2, padding 1, output padding 1": {
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "output_padding": 1,
    },
    "3, stride 3, dilation 2": {"kernel_size": 3, "stride": 3, "dilation": 2, "padding": 2},
    "1, stride 2": {"kernel_size": 1, "stride": 2},
}
SHIFT = "before a transposed convolution with stride [2, 2]: every output is reached by other taps"


def up(inputs: int = 4, outputs: int = 4, window: int = 4, **options: Any) -> nn.ConvTranspose2d:
    padding = options.pop("padding", (window - 2) // 2)
    return nn.ConvTranspose2d(inputs, outputs, window, options.pop("stride", 2), padding, **options)


def names(done: Folded, x: Tensor) -> dict[str, int]:
    return operators(done.module, (x,))


@pytest.mark.diagonal
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_trap_04_a_norm_behind_scales_the_outputs_of_every_group(
    dims: int, groups: int, attributes: str
) -> None:
    """As many outputs as inputs: scaling the inputs, as inductor's freezing does, would not fail."""
    layer = LAYERS[dims - 1](4, 4, groups=groups, **ATTRIBUTES[attributes])
    x = noise(2, 4, *(5, 4, 3)[:dims])
    net = Net(
        lambda s, x: s.norm(s.layer(x)) * s.scale,
        layer=layer,
        norm=NORMS[dims - 1](4),
        scale=noise(4, *(1,) * dims),
    )
    done = fold_and_compare(randomised(net), x, dynamic="auto")
    assert names(done, x) == {"conv_transpose": 1}
    assert all(f.error <= BAR for f in done.folds)
    for sides in ((1, 1, 1), (2, 3, 4), (7, 4, 5)):
        done.compare(noise(1, 4, *sides[:dims]))


def test_a_norm_behind_fewer_outputs_than_inputs_in_groups() -> None:
    x = noise(2, 6, 5, 4)
    net = nn.Sequential(up(6, 4, groups=2, bias=False), nn.BatchNorm2d(4))
    assert names(fold_and_compare(randomised(net), x), x) == {"conv_transpose": 1}


ONE: dict[str, Callable[[], nn.Module]] = {
    "number behind": lambda: Net(lambda s, x: s.a(x) * 0.5 + 1, a=up()),
    "scale before": lambda: Net(lambda s, x: s.a(x.relu() * s.scale), a=up(), scale=noise(4, 1, 1)),
    "1x1 behind": lambda: nn.Sequential(nn.ReLU(), up(4, 6), nn.Conv2d(6, 4, 1)),
    "1x1 before": lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 1, bias=False), up(6, 4)),
    "branches": lambda: Net(
        lambda s, x: (s.na(s.a(y := x.relu())) + s.nb(s.b(y)) - s.c(y)) * s.scale,
        a=up(),
        na=nn.BatchNorm2d(4),
        b=up(window=2, groups=2, bias=False),
        nb=nn.BatchNorm2d(4),
        c=up(window=3, padding=1, output_padding=1),
        scale=noise(4, 1, 1),
    ),
    "1x1 beside": lambda: Net(
        lambda s, x: s.a(y := x.relu()) + s.c(s.b(y)),
        a=up(),
        b=nn.Conv2d(4, 6, 1, bias=False),
        c=up(6, 4, 2),
    ),
    "crop behind": lambda: Net(
        lambda s, x: s.norm(s.a(x.relu())[:, :, 1:-1, 1:-1]), a=up(padding=0), norm=nn.BatchNorm2d(4)
    ),
    "one side cropped": lambda: Net(
        lambda s, x: s.norm(s.a(x.relu())[:, :, :-1, 1:]), a=up(padding=0), norm=nn.BatchNorm2d(4)
    ),
    "computed weight": lambda: Net(
        lambda s, x: s.norm(F.conv_transpose2d(x.relu(), torch.tanh(s.w) * 0.3, None, 2, 1)),
        w=nn.Parameter(noise(4, 4, 4, 4)),
        norm=nn.BatchNorm2d(4),
    ),
    "weight norm": lambda: Net(
        lambda s, x: s.a(x.relu()), a=nn.utils.parametrizations.weight_norm(up(), dim=1)
    ),
    "output size": lambda: Net(
        lambda s, x: s.norm(s.a(x.relu(), output_size=[10, 13])),
        a=up(window=3, padding=1),
        norm=nn.BatchNorm2d(4),
    ),
    "twice": lambda: nn.Sequential(nn.ReLU(), up(window=2, bias=False), up(window=2)),
}


@pytest.mark.parametrize("name", ONE)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_becomes_one_transposed_convolution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "twice":
        monkeypatch.setattr(cost, "KAPPA", 1e6)
    x = noise(2, 4, 5, 7) if name == "output size" else noise(2, 4, 5, 6)
    done = fold_and_compare(randomised(ONE[name]()), x)
    found = names(done, x)
    assert {k: n for k, n in found.items() if k != "relu"} == {"conv_transpose": 1}
    assert all(f.error <= BAR for f in done.folds)


def test_with_stride_1_it_is_a_convolution_and_meets_the_other_branches() -> None:
    net = Net(
        lambda s, x: s.norm(s.a(x) + s.b(x) + x),
        a=nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2),
        b=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    x = noise(2, 4, 5, 6)
    done = fold_and_compare(randomised(net), x)
    assert names(done, x) == {"conv": 1}


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.ConvTranspose2d(4, 6, 3, padding=3), (7, 8)),
        (nn.ConvTranspose2d(4, 6, (4, 1), padding=(1, 0), dilation=(1, 3)), (5, 6)),
        (nn.ConvTranspose2d(4, 6, 2, output_padding=1, dilation=2), (5, 6)),
    ],
    ids=["crop", "even", "output padding"],
)
def test_the_odd_cases_of_stride_1(layer: nn.Module, size: tuple[int, int]) -> None:
    x = noise(2, 4, *size)
    done = fold_and_compare(randomised(nn.Sequential(layer, nn.BatchNorm2d(6))), x)
    assert "batch_norm" not in names(done, x)


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_norm_before_it_stays_and_the_reason_says_why(window: int, padding: int) -> None:
    """Also where every output is reached by one tap only: its neighbour is reached by another."""
    x = noise(2, 4, 5, 6)
    done = fold_and_compare(
        randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), up(window=window, padding=padding))), x
    )
    assert names(done, x) == {"relu": 1, "batch_norm": 1, "conv_transpose": 1}
    assert f"a per-channel shift {SHIFT}" in done.reasons()


STAY: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "1x1 with a bias before": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), up()),
        f"a per-channel shift {SHIFT}",
    ),
    "number before": (lambda: Net(lambda s, x: s.a(x.relu() + 1), a=up()), f"a constant shift {SHIFT}"),
    "padded convolution behind": (
        lambda: nn.Sequential(up(bias=False), nn.Conv2d(4, 4, 3, padding=1)),
        "zero padding behind a transposed convolution that ends inside its windows",
    ),
    "padded convolution behind a shift": (
        lambda: nn.Sequential(up(), nn.Conv2d(4, 4, 3, padding=1)),
        "a per-channel shift before zero padding",
    ),
    "padded convolution before": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), up()),
        "a transposed convolution behind a window that reaches over the border",
    ),
    "strided convolution behind": (
        lambda: nn.Sequential(up(), nn.Conv2d(4, 4, 3, 2)),
        "a layer with stride [2, 2] skips positions between those of a transposed one",
    ),
    "crop before": (
        lambda: Net(lambda s, x: s.a(F.pad(x.relu(), (-1, -1))), a=up()),
        "a crop before a transposed convolution: the cropped values would come back",
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_not_exact_stays_and_the_reason_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "KAPPA", 1e6)
    make, reason = STAY[name]
    done = fold_and_compare(randomised(make()), noise(2, 4, 5, 6))
    assert done.folds == ()
    assert reason in done.reasons()


def test_what_would_be_dearer_stays() -> None:
    """Depthwise, then pointwise: the product is dense."""
    x = noise(1, 32, 8, 8)
    done = fold_and_compare(
        randomised(nn.Sequential(nn.ReLU(), up(32, 32, groups=32), nn.Conv2d(32, 32, 1))), x
    )
    assert names(done, x) == {"relu": 1, "conv_transpose": 1, "conv": 1}
    assert "is exact but dearer" in done.reasons()


def test_branches_of_different_strides_that_happen_to_agree_stay_apart() -> None:
    """One row: 2·(1 - 1) + 3 = 3·(1 - 1) + 3."""
    net = Net(lambda s, x: s.a(x) + s.b(x), a=up(window=3, padding=0), b=up(window=3, stride=3, padding=0))
    x = noise(2, 4, 1, 1)
    done = fold_and_compare(randomised(net), x)
    assert names(done, x) == {"conv_transpose": 2, "add": 1}
    assert done.folds == ()


def test_a_sum_with_another_value_folds_on_each_side() -> None:
    """A skip connection; its lengths are those that the transposed convolution can give."""

    def forward(s: Any, x: Tensor, y: Tensor) -> Tensor:
        return s.na(s.a(x)) + s.nb(s.b(y))

    net = PairNet(
        forward,
        a=up(4, 6, 3, padding=1, output_padding=1),
        na=nn.BatchNorm2d(6),
        b=nn.Conv2d(3, 6, 3, padding=1),
        nb=nn.BatchNorm2d(6),
    )
    x, y = noise(2, 4, 5, 6), noise(2, 3, 10, 12, seed=1)
    done = fold(randomised(net), x, y)
    done.compare(x, y)
    assert operators(done.module, (x, y)) == {"conv_transpose": 1, "conv": 1, "add": 1}


@pytest.mark.parametrize("given", [(2, 3), (3, 2)])
def test_the_proof_finds_sizes_that_different_strides_have_in_common(given: tuple[int, int]) -> None:
    """Lengths of 2·n and of 3·m: 6, 12, 18, …"""
    a, b = (up(4, 5, stride, stride=stride, padding=0) for stride in given)
    net = PairNet(
        lambda s, x, y: s.na(s.a(x)) + s.nb(s.b(y)), a=a, b=b, na=nn.BatchNorm2d(5), nb=nn.BatchNorm2d(5)
    )
    x, y = noise(2, 4, *(12 // given[0],) * 2), noise(2, 4, *(12 // given[1],) * 2, seed=1)
    done = fold(randomised(net), x, y)
    done.compare(x, y)
    assert operators(done.module, (x, y)) == {"conv_transpose": 2, "add": 1}
    structures = [transposed(4, 5, 1, (s,), (s,), (1,), (0,), (0,), has_bias=True) for s in given]
    lengths = proof_sizes._lengths(tuple(structures), 1, 2)
    assert all(n % 6 == 0 for (n,), _ in lengths)
    assert len({n for (n,), _ in lengths}) == 2


def test_without_a_size_in_common_the_captured_one_is_left() -> None:
    even, odd = (transposed(4, 5, 1, (k,), (2,), (1,), (0,), (0,), has_bias=True) for k in (2, 3))
    assert proof_sizes._lengths((even, odd), 1, 2) == []


def test_concatenated_branches_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "KAPPA", 1e6)
    net = Net(lambda s, x: torch.cat([s.a(y := x.relu()), s.b(y)], 1), a=up(4, 3), b=up(4, 2, 2))
    x = noise(2, 4, 5, 6)
    assert names(fold_and_compare(randomised(net), x), x) == {"relu": 1, "conv_transpose": 1}


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_a_size_given_by_another_value_is_met_at_every_size(dynamic: Any) -> None:
    """The output padding depends on the parity of the input: refused where sizes are free, and right."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return s.norm(s.up(s.down(x), output_size=x.shape[2:]))

    net = Net(forward, down=nn.Conv2d(4, 4, 3, 2, 1), up=up(window=3, padding=1), norm=nn.BatchNorm2d(4))
    x = noise(2, 4, 9, 8)
    done = fold(randomised(net), x, dynamic=dynamic)
    done.compare(x)
    free = bool(done.program.axes.get(0))
    if dynamic and free:
        for sides in ((8, 9), (7, 7), (12, 10)):
            done.compare(noise(1, 4, *sides))
        assert "its output_padding depends on a size that varies" in done.reasons()
    else:
        assert "batch_norm" not in names(done, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_folded_in_float64_and_rounded_once(dtype: torch.dtype) -> None:
    net = randomised(nn.Sequential(up(), nn.BatchNorm2d(4))).to(dtype)
    x = noise(2, 4, 5, 6, dtype=dtype)
    done = fold(net, x, dtype=None)
    assert names(done, x) == {"conv_transpose": 1}
    assert {p.dtype for p in done.module.parameters()} == {dtype}
    done.compare(x, bar=16 * torch.finfo(dtype).eps)


def test_half_precision_weights_that_would_overflow_are_refused() -> None:
    net = randomised(nn.Sequential(up(), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net.get_parameter("0.weight").mul_(1e3)
        net.get_buffer("1.running_var").fill_(1e-5)
    done = fold(net.half(), noise(2, 4, 5, 6, dtype=torch.float16), dtype=None)
    assert "overflows or vanishes in float16" in done.reasons()
    assert done.folds == ()


def test_in_float32_the_fold_is_as_accurate_as_the_block() -> None:
    net = randomised(nn.Sequential(up(8, 8, groups=2), nn.BatchNorm2d(8)))
    x = noise(2, 8, 9, 7, dtype=torch.float32)
    done = fold(net, x, dtype=torch.float32)
    with torch.no_grad():
        before, after = done.original(x), done.module(x)
        exact = done.original.double()(x.double())
    scale = exact.abs().max()
    e0, e1 = ((v.double() - exact).abs().max() / scale for v in (before, after))
    assert e1 <= 4 * e0 + 4 * torch.finfo(torch.float32).eps


def test_the_layer_takes_the_path_of_its_own_and_branches_that_of_their_block() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = up(), up(window=2)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.wide(x) + self.narrow(x))

    net = nn.Sequential()
    net.add_module("first", nn.Sequential(up(), nn.BatchNorm2d(4), nn.ReLU()))
    net.add_module("second", Block())
    done = fold_and_compare(randomised(net), noise(2, 4, 3, 4))
    first, second = (done.module.get_submodule(p) for p in ("first.0", "second.reparam_conv"))
    assert isinstance(first, nn.ConvTranspose2d)
    assert isinstance(second, nn.ConvTranspose2d)
    assert first.bias is not None
    assert (first.kernel_size, first.stride, first.padding) == ((4, 4), (2, 2), (1, 1))
    assert [f.layers for f in done.folds] == [
        {"first.0": "ConvTranspose2d 4 -> 4, 4x4, stride 2"},
        {"second.reparam_conv": "ConvTranspose2d 4 -> 4, 4x4, stride 2"},
    ]


def test_folding_again_changes_nothing() -> None:
    net = nn.Sequential(up(), nn.BatchNorm2d(4), nn.ReLU(), up(groups=2, window=3, output_padding=1))
    x = noise(2, 4, 3, 4)
    done = fold_and_compare(randomised(net), x)
    again = fold_and_compare(done.module, x)
    assert again.folds == ()


def test_a_layer_that_is_read_twice_keeps_its_other_reader() -> None:
    net = Net(lambda s, x: s.norm(y := s.a(x)) * y.sigmoid(), a=up(), norm=nn.BatchNorm2d(4))
    fold_and_compare(randomised(net), noise(2, 4, 3, 4))


def test_without_a_batch() -> None:
    x = noise(4, 5, 6)
    done = fold_and_compare(randomised(Net(lambda s, x: s.a(x) * 0.5, a=up())), x)
    assert names(done, x) == {"conv_transpose": 1}
