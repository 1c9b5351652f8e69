"""The traps of DESIGN.md section 6 that concern the engine, each as the network that falls into it.

Trap 14 is in `test_proof` too, 6, 8 and 9 in `tests/operators`, 15 in `test_survival`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, fold, fold_and_compare, nodes_of, noise, randomised

X = (2, 4, 7, 6)


def conv(inputs: int = 4, outputs: int = 4, window: Any = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, window, padding=options.pop("padding", 1), **options)


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: (s.nothing(y := s.conv(x)).relu_(), y)[0] + y,
        lambda s, x: (y := s.conv(x)) + s.nothing(y).add_(1) * y,
        lambda s, x: s.norm(y := s.conv(x)) + F.relu(y, inplace=True),
        lambda s, x: (s.nothing(x).mul_(2), s.conv(x))[1],
    ],
    ids=["relu_ of an identity", "add_ of an identity", "relu_ of a folded conv", "mul_ of the input"],
)
def test_trap_01_a_write_through_an_identity_reaches_what_it_did(forward: Callable[..., Any]) -> None:
    net = Net(forward, conv=conv(), norm=nn.BatchNorm2d(4), nothing=nn.Identity())
    fold_and_compare(randomised(net), noise(*X))


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_trap_02_one_convolution_before_two_norms(dynamic: Any) -> None:
    """torch.fx's fuser is off by 19 here: it writes the second norm into weights that hold the first."""
    net = Net(
        lambda s, x: s.second(s.conv(s.first(s.conv(x)).relu())).relu() + s.conv(x),
        conv=conv(),
        first=nn.BatchNorm2d(4),
        second=nn.BatchNorm2d(4),
    )
    done = fold_and_compare(randomised(net), noise(*X), dynamic=dynamic)
    assert done.count(noise(*X))[:2] == (2, 1)  # conv(x) is one value, which the sum reads as it is


def test_trap_02_one_parameter_in_two_modules() -> None:
    first, second = conv(), conv()
    second.weight = first.weight
    net = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4), nn.ReLU(), first)
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.count(noise(*X))[:2] == (3, 0)


def test_trap_02_one_norm_behind_two_convolutions() -> None:
    net = Net(lambda s, x: s.norm(s.a(x)).relu() * s.norm(s.b(x)), a=conv(), b=conv(), norm=nn.BatchNorm2d(4))
    assert fold_and_compare(randomised(net), noise(*X)).count(noise(*X))[:2] == (2, 0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: s.norm(y := s.conv(x)) + y,
        lambda s, x: s.norm(y := s.conv(x)) + torch.sigmoid(y),
        lambda s, x: (s.norm(y := s.conv(x)), y),
        lambda s, x: s.norm(y := s.conv(x)).relu() * y,
    ],
    ids=["sum", "gate", "output", "product"],
)
def test_trap_03_a_convolution_that_is_read_twice(forward: Callable[..., Any]) -> None:
    """torchao's fuser is off by 1.7 here: it lets the other reader see the folded convolution."""
    net = randomised(Net(forward, conv=conv(), norm=nn.BatchNorm2d(4)))
    done = fold_and_compare(net, noise(*X))
    assert done.count(noise(*X))[0] <= 2


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_trap_04_transposed_convolutions_are_left_alone_or_scaled_on_the_right_axis(
    dims: int, groups: int
) -> None:
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1](4, 4, 3, groups=groups)
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](4)
    net = Net(lambda s, x: s.norm(s.layer(x)) * s.scale, layer=layer, norm=norm, scale=noise(4, *(1,) * dims))
    fold_and_compare(randomised(net), noise(2, 4, *(5,) * dims))


def test_trap_05_a_norm_before_a_padded_convolution_stays_and_the_reason_names_the_border() -> None:
    x = noise(*X)
    done = fold_and_compare(randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), conv())), x)
    assert "a per-channel shift before zero padding: the padded border stays zero" in done.reasons()
    unpadded = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), conv(padding=0))
    assert fold_and_compare(randomised(unpadded), x).count(x) == (1, 0, 0)


def test_trap_05_a_scale_without_a_shift_passes_the_padding() -> None:
    net = Net(lambda s, x: s.conv(x.relu() * s.scale), conv=conv(), scale=noise(4, 1, 1))
    done = fold_and_compare(randomised(net), noise(*X))
    assert [str(n.target) for n in nodes_of(done.module) if "mul" in str(n.target)] == []


@pytest.mark.parametrize(
    ("options", "folds"),
    [
        ({"padding": 1}, True),
        ({"padding": 1, "count_include_pad": False}, False),
        ({"ceil_mode": True}, False),
        ({"padding": 1, "divisor_override": 4}, True),
        ({"padding": 1, "divisor_override": 4, "count_include_pad": False}, True),
        ({"ceil_mode": True, "divisor_override": 4}, False),
        ({"padding": 0, "count_include_pad": False}, True),
    ],
)
def test_trap_06_which_average_pooling_is_a_convolution(options: dict[str, Any], folds: bool) -> None:
    """The sum with a 3x3 convolution of the same sizes shows whether it joined."""
    padding = options.get("padding", 0)
    net = Net(
        lambda s, x: s.conv(y := x.relu()) + F.avg_pool2d(y, 3, stride=2, **options),
        conv=conv(padding=padding, stride=2),
    )
    x = noise(2, 4, 7, 7)
    done = fold_and_compare(randomised(net), x)
    assert (done.count(x) == (1, 0, 0)) == folds
    assert folds or "ceil_mode" in done.reasons() or "count_include_pad" in done.reasons()


def test_trap_07_a_model_in_training_mode_is_folded_as_an_eval_copy_and_told_so() -> None:
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5))).double()
    x, expected = noise(*X), net.eval()(noise(*X))
    statistics = net.get_buffer("1.running_mean").clone()
    net.train()
    program = capture(net, (x,), dynamic=False)
    module = fold_program(program).module
    assert (module(x) - expected).abs().max() < 1e-12
    assert any("training mode" in note and "model.eval()" in note for note in program.notes)
    assert all(m.training for m in net.modules()), "the model handed in keeps its mode"
    assert torch.equal(net.get_buffer("1.running_mean"), statistics)


def test_trap_07_a_norm_of_batch_statistics_stays() -> None:
    net = Net(lambda s, x: s.norm(s.conv(x)), conv=conv(), norm=nn.BatchNorm2d(4, track_running_stats=False))
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.folds == ()
    assert "keeps no running statistics" in done.reasons()


def test_trap_07_a_norm_that_has_running_statistics_and_trains_stays_and_says_so() -> None:
    net = Net(
        lambda s, x: F.batch_norm(s.conv(x), s.mean * 1, s.var * 1, s.weight, training=True),
        conv=conv(),
        mean=noise(4),
        var=noise(4).square() + 1,
        weight=noise(4, seed=1),
    )
    done = fold_and_compare(net, noise(*X))
    assert done.folds == ()
    assert "the batch norm is in training mode: call model.eval() before folding" in done.reasons()


def test_trap_07_a_norm_that_trains_and_a_dropout_that_is_on_inside_an_eval_model_stay() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = F.batch_norm(s.conv(x), None, None, s.weight, training=True)
        return F.dropout(y, 0.5, training=True)

    net = randomised(Net(forward, conv=conv(), weight=noise(4))).double()
    done = fold(net, noise(*X))
    assert done.folds == ()
    assert "the dropout is on (training mode): call model.eval() before folding" in done.reasons()
    answers = []
    for module in (done.original, done.module):
        torch.manual_seed(0)
        answers.append(module(noise(*X)))
    assert torch.equal(*answers)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_trap_08_other_padding_modes_stay_in_front_of_the_folded_convolution(mode: Any) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode), nn.BatchNorm2d(4))
    x = noise(*X)
    done = fold_and_compare(randomised(net), x)
    assert done.count(x) == (1, 0, 0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("window", [2, 4, (2, 3), (4, 1)])
def test_trap_08_same_padding_with_an_even_window_beside_a_1x1(window: Any) -> None:
    net = Net(
        lambda s, x: s.norm(s.wide(x) + s.one(x) + x),
        wide=conv(window=window, padding="same"),
        one=conv(window=1, padding=0),
        norm=nn.BatchNorm2d(4),
    )
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.count(noise(*X)) == (1, 0, 0)


BROADCASTS: dict[str, Callable[..., Any]] = {
    "pooled": lambda s, x: s.conv(x) + s.one(x).mean((2, 3), keepdim=True),
    "one channel": lambda s, x: s.conv(x) + s.conv(x)[:, :1],
    "one row": lambda s, x: s.conv(x) - s.conv(x)[:, :, :1],
    "another rank": lambda s, x: s.conv(x) + x[0, 0],
    "a batch of one": lambda s, x: s.conv(x) + s.one(x)[:1],
}


@pytest.mark.parametrize("name", BROADCASTS)
def test_trap_09_a_sum_that_broadcasts_is_no_sum_of_maps(name: str) -> None:
    net = Net(BROADCASTS[name], conv=conv(), one=conv(window=1, padding=0))
    done = fold_and_compare(randomised(net), noise(*X))
    assert "the sum broadcasts" in done.reasons()


SUMS: dict[str, Callable[..., Any]] = {
    "zero": lambda s, x: 0 + s.conv(x) + s.one(x),
    "sum()": lambda s, x: sum([s.conv(x), s.one(x), x]),
    "alpha": lambda s, x: torch.add(s.conv(x), s.one(x), alpha=-2),
    "sub alpha": lambda s, x: torch.sub(s.conv(x), s.one(x), alpha=0.5),
    "rsub": lambda s, x: torch.rsub(s.conv(x), s.one(x), alpha=3),
    "iadd": lambda s, x: s.conv(x).__iadd__(s.one(x)),
    "isub": lambda s, x: s.conv(x).sub_(s.one(x), alpha=2),
    "one minus": lambda s, x: 1 - s.conv(x) - (2 - s.one(x)),
}


@pytest.mark.parametrize("name", SUMS)
def test_trap_09_every_spelling_of_a_sum_folds(name: str) -> None:
    net = Net(SUMS[name], conv=conv(), one=conv(window=1, padding=0))
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.count(noise(*X)) == (1, 0, 0)


COMPUTED: dict[str, Callable[..., Tensor]] = {
    "standardised": lambda w, v: (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True),
    "product of two (OREPA)": lambda w, v: torch.einsum("oi,ichw->ochw", v, w),
    "scaled": lambda w, v: w * v.sum(1).view(-1, 1, 1, 1),
    "padded 1x1": lambda w, v: F.pad(v[:, :, None, None], (1, 1, 1, 1)) + w,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_trap_10_a_weight_computed_from_parameters_is_computed_once(name: str) -> None:
    net = Net(
        lambda s, x: s.norm(F.conv2d(x, COMPUTED[name](s.w, s.v), padding=1)),
        w=nn.Parameter(noise(4, 4, 3, 3)),
        v=nn.Parameter(noise(4, 4, seed=1)),
        norm=nn.BatchNorm2d(4),
    )
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.count(noise(*X)) == (1, 0, 0)
    names = [n.name for n in nodes_of(done.module) if n.target != "size_guards"]
    assert len(names) == 3, names


def test_trap_10_a_weight_computed_from_the_input_stays() -> None:
    net = Net(lambda s, x: F.conv2d(x, s.w * x.mean()) * 2, w=nn.Parameter(noise(4, 4, 3, 3)))
    done = fold_and_compare(net, noise(*X))
    assert "its weight depends on the network's input" in done.reasons()


def test_trap_10_a_weight_that_changes_from_call_to_call_stays() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.steps.add_(1)
        return F.conv2d(x, s.w * s.steps) * 2

    done = fold(Net(forward, w=nn.Parameter(noise(4, 4, 3, 3)), steps=torch.ones(1)), noise(*X))
    done.compare(noise(*X))
    done.compare(noise(*X))


@pytest.mark.parametrize("inner", [torch.float64, torch.float16, torch.bfloat16])
def test_trap_11_a_norm_in_another_number_type_is_refused_by_name(inner: torch.dtype) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return s.norm(s.conv(x).to(inner)).to(x.dtype)

    net = Net(forward, conv=conv(), norm=nn.BatchNorm2d(4).to(inner))
    done = fold(randomised(net), noise(*X, dtype=torch.float32), dtype=None)
    name = str(inner).removeprefix("torch.")
    done.compare(noise(*X, dtype=torch.float32), bar=1e-6)
    assert f"it turns float32 into {name}" in done.reasons()


def test_trap_11_half_precision_weights_that_would_overflow_are_refused() -> None:
    net = nn.Sequential(conv(padding=0), nn.BatchNorm2d(4))
    randomised(net)
    with torch.no_grad():
        net.get_parameter("0.weight").mul_(1e3)
        net.get_buffer("1.running_var").fill_(1e-5)
    done = fold(net.half(), noise(*X, dtype=torch.float16), dtype=None)
    assert "overflows or vanishes in float16" in done.reasons()
    assert [f for f in done.folds if "conv2d" in str(f)] == []


def test_trap_12_a_branch_that_nothing_reads_changes_nothing() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x))
        F.gelu(y)
        s.other(y)
        return y * 2

    net = Net(forward, conv=conv(), other=conv(), norm=nn.BatchNorm2d(4))
    done = fold_and_compare(randomised(net), noise(*X))
    assert done.count(noise(*X)) == (1, 0, 0)
    assert not any("gelu" in n.name for n in nodes_of(done.module))


def test_trap_12_a_dropped_activation_that_writes_in_place_is_kept() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x))
        F.relu(y, inplace=True)
        return y * 2

    done = fold_and_compare(randomised(Net(forward, conv=conv(), norm=nn.BatchNorm2d(4))), noise(*X))
    assert any("relu" in n.name for n in nodes_of(done.module))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: nn.Sequential(conv(32, 32, groups=32), conv(32, 64, 1, padding=0)),
        lambda: nn.Sequential(conv(32, 4, 1, padding=0), conv(4, 32, 1, padding=0)),
        lambda: nn.Sequential(conv(32, 4, 3, padding=0), conv(4, 32, 3, padding=0)),
    ],
    ids=["depthwise then pointwise", "bottleneck", "two windows"],
)
def test_trap_13_what_would_become_dense_is_exact_and_stays(layers: Callable[[], nn.Module]) -> None:
    x = noise(1, 32, 12, 12)
    done = fold_and_compare(randomised(layers()), x)
    assert done.count(x)[0] == 2
    assert "is exact but dearer" in done.reasons()


def test_trap_14_an_untrained_norm_is_not_taken_for_an_identity() -> None:
    """Mean 0 and variance 1 still divide by sqrt(1 + ε)."""
    net = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4, eps=0.5), nn.ReLU()).eval()
    done = fold_and_compare(net, noise(*X))
    assert (done.module(noise(*X)) / noise(*X).relu().clamp(min=1e-9)).max() < 0.9


def test_trap_15_the_original_is_neither_changed_nor_shared() -> None:
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4))).double()
    before, modules = copy.deepcopy(net.state_dict()), [type(m) for m in net.modules()]
    done = fold_program(capture(net, (noise(*X),), dynamic=False)).module
    expected = net(noise(*X))
    with torch.no_grad():
        for tensor in [*done.parameters(), *done.buffers()]:
            tensor.fill_(torch.nan)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert [type(m) for m in net.modules()] == modules
    assert torch.equal(net(noise(*X)), expected)
    assert bool(torch.isnan(done(noise(*X))).all())


def test_trap_11_a_scale_that_overflows_in_the_layer_above_a_transpose_stays_where_it_is() -> None:
    net = Net(
        lambda s, x: (s.linear(x).transpose(1, 2) * s.scale).relu(),
        linear=nn.Linear(4, 4),
        scale=torch.full((4, 1), 300.0, dtype=torch.float16),
    ).half()
    nn.init.constant_(net.get_parameter("linear.weight"), 300.0)
    x = noise(2, 5, 4).half() * 1e-3
    outcome = fold_program(capture(net.eval(), (x,), dynamic=False))
    assert torch.equal(outcome.module(x), net(x))
    assert any("overflows" in r.reason for r in outcome.refusals)
