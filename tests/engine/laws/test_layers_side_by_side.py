"""`merge_siblings`: layers that read the same value become one."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import Outcome, fold_program
from tests.nets import Net, assert_same, noise, randomised


def _merged(net: Net, *inputs: Tensor, dynamic: Any = False) -> Outcome:
    outcome = fold_program(capture(net, inputs, dynamic=dynamic), merge_siblings=True)
    again = tuple(torch.randn_like(x) for x in inputs)
    assert_same(net(*again), outcome.module(*again), 1e-12)
    return outcome


def _layers(outcome: Outcome) -> dict[str, int]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return dict(Counter(type(m).__name__ for m in outcome.module.modules() if isinstance(m, kinds)))


class Attention(nn.Module):
    """Queries, keys and values by layers of their own; the keys without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8, bias=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x)


@pytest.mark.parametrize("dynamic", [False, "auto"])
def test_queries_keys_and_values_become_one_layer(dynamic: Any) -> None:
    net = randomised(Attention()).double()
    outcome = fold_program(capture(net, (noise(2, 5, 6),), dynamic=dynamic), merge_siblings=True)
    for x in (noise(2, 5, 6, seed=3), noise(3, 7, 6)) if dynamic else (noise(2, 5, 6, seed=3),):
        assert_same(net(x), outcome.module(x), 1e-12)
    assert _layers(outcome) == {"Linear": 1}
    assert [name for name, _ in outcome.module.named_parameters()] == [
        "merged_linear.weight",
        "merged_linear.bias",
    ]
    assert "3 siblings as one Linear 6 -> 20" in str(outcome.folds[-1])
    assert outcome.folds[-1].nodes == ("linear", "linear_1", "linear_2")


def test_not_without_being_asked() -> None:
    net = randomised(Attention()).double()
    assert not fold_program(capture(net, (noise(2, 5, 6),), dynamic=False)).folds


def test_folded_convolutions_of_one_input_and_shape_become_one() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.n1(m.c1(x)).relu(), m.n2(m.c2(x)).sigmoid(), m.c3(x)

    convs = {f"c{i}": nn.Conv2d(3, i + 1, 3, padding=1, stride=2) for i in (1, 2)}
    norms = {"n1": nn.BatchNorm2d(2), "n2": nn.BatchNorm2d(3)}
    net = randomised(Net(forward, **convs, **norms, c3=nn.Conv2d(3, 4, 1))).double()
    assert _layers(_merged(net, noise(2, 3, 9, 8))) == {"Conv2d": 1}  # the 1x1 convolution stays a call


def test_a_concatenation_of_them_needs_no_split() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = x.relu()
        return torch.cat([m.a(x), m.b(x)], 1).sigmoid()

    net = randomised(Net(forward, a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 4, 1))).double()
    module = _merged(net, noise(2, 3, 5, 6)).module
    called = [str(n.target).split(".")[1] for n in module.graph.nodes if n.op == "call_function"]
    assert called == ["relu", "sigmoid"]


@pytest.mark.parametrize(
    ("forward", "parts"),
    [
        (lambda m, x: (m.a(x), m.b(x.relu())), {}),
        (lambda m, x: (m.a(x), m.b(x)), {"b": nn.Conv2d(4, 4, 3, padding=2, dilation=2)}),
        (lambda m, x: (m.a(x), m.b(x)), {"b": nn.Conv2d(4, 4, 3, padding=1, groups=2)}),
        (lambda m, x: (m.a(x), m.b(x)), {"b": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")}),
        (lambda m, x: (m.a(x), m.b(x)), {"b": nn.Conv2d(4, 4, 3, stride=2, padding=1)}),
    ],
    ids=["other inputs", "dilation", "groups", "padding mode", "stride"],
)
def test_what_differs_stays_apart(forward: Callable[..., Any], parts: dict[str, nn.Module]) -> None:
    convs = {name: nn.Conv2d(4, 4, 3, padding=1) for name in "ab"} | parts
    net = randomised(Net(forward, **convs)).double()
    assert not any("siblings" in str(fold) for fold in _merged(net, noise(2, 4, 9, 8)).folds)


def test_the_model_keeps_its_weights() -> None:
    net = randomised(Attention()).double()
    before = copy.deepcopy(net.state_dict())
    fold_program(capture(net, (noise(2, 5, 6),), dynamic=False), merge_siblings=True)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("along", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_maps_without_a_batch_are_concatenated_where_they_were(dims: int, along: int) -> None:
    """(C, H, W) side by side along H is no concatenation of channels, although H is axis 1."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    if not -dims - 1 <= along <= dims:
        along = 0
    net = randomised(
        Net(lambda s, x: torch.cat([s.a(x), s.b(x)], along).relu(), a=conv(3, 4, 1), b=conv(3, 4, 1))
    ).double()
    x = noise(3, *(5, 6, 4)[:dims])
    outcome = _merged(net, x)
    assert outcome.in_place
    counts = Counter(str(n.target) for n in outcome.module.graph.nodes if n.op == "call_function")
    of_channels = along in (0, -dims - 1)
    assert counts["aten.cat.default"] == (not of_channels)


@pytest.mark.parametrize("along", [1, -3, 2, -1, 0])
def test_maps_with_a_batch_are_concatenated_where_they_were(along: int) -> None:
    net = randomised(
        Net(
            lambda s, x: torch.cat([s.a(x), s.b(x)], along).relu(),
            a=nn.Conv2d(3, 4, 3, padding=1),
            b=nn.Conv2d(3, 4, 3, padding=1, bias=False),
        )
    ).double()
    outcome = _merged(net, noise(2, 3, 5, 6))
    counts = Counter(str(n.target) for n in outcome.module.graph.nodes if n.op == "call_function")
    assert counts["aten.cat.default"] == (along not in (1, -3))


@pytest.mark.parametrize("along", [0, 1, -1])
def test_linear_layers_are_concatenated_where_they_were(along: int) -> None:
    net = randomised(
        Net(lambda s, x: torch.cat([s.a(x), s.b(x)], along).relu(), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    ).double()
    outcome = _merged(net, noise(4, 4))
    counts = Counter(str(n.target) for n in outcome.module.graph.nodes if n.op == "call_function")
    assert counts["aten.cat.default"] == (along == 0)


class Fusion(nn.ModuleDict):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (self["xa"](x) + self["ya"](y)).relu(), (self["xb"](x) + self["yb"](y)).sigmoid()


def test_sums_of_layers_on_two_inputs_need_one_layer_each() -> None:
    """HRNet's fusion: every result is a sum over all inputs."""
    sizes = {"xa": (4, 3), "xb": (4, 2), "ya": (5, 3), "yb": (5, 2)}
    net = randomised(Fusion({name: nn.Conv2d(*size, 1) for name, size in sizes.items()})).double()
    inputs = noise(2, 4, 5, 6), noise(2, 5, 5, 6)
    outcome = fold_program(capture(net, inputs, dynamic=False), merge_siblings=True)
    for mine, theirs in zip(outcome.module(*inputs), net(*inputs), strict=True):
        assert_same(theirs, mine, 1e-12)
    assert _layers(outcome) == {"Conv2d": 2}
    assert outcome.in_place


def test_frozen_layers_stay_frozen_and_apart() -> None:
    net = randomised(
        Net(lambda s, x: (s.a(x), s.b(x), s.c(x), s.d(x)), **{n: nn.Linear(6, 3) for n in "abcd"})
    )
    for name in "ab":
        net.get_submodule(name).requires_grad_(False)
    outcome = _merged(net.double(), noise(2, 6))
    trained = {name: p.requires_grad for name, p in outcome.module.named_parameters()}
    assert trained == {
        "merged_linear.weight": False,
        "merged_linear.bias": False,
        "merged_linear_1.weight": True,
        "merged_linear_1.bias": True,
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_fewer_bits_are_those_of_the_layers(dtype: torch.dtype) -> None:
    net = randomised(Attention()).to(dtype)
    outcome = fold_program(capture(net, (noise(2, 5, 6).to(dtype),), dynamic=False), merge_siblings=True)
    layer = outcome.module.get_submodule("merged_linear")
    assert isinstance(layer, nn.Linear)
    assert torch.equal(layer.weight, torch.cat([net.q.weight, net.k.weight, net.v.weight]))
    assert layer.weight.dtype == dtype


def test_layers_without_a_bias_get_none() -> None:
    net = randomised(Net(lambda s, x: (s.a(x), s.b(x)), **{n: nn.Linear(6, 3, bias=False) for n in "ab"}))
    outcome = _merged(net.double(), noise(2, 6))
    assert [name for name, _ in outcome.module.named_parameters()] == ["merged_linear.weight"]


def test_other_readers_of_the_weights_keep_them() -> None:
    net = randomised(
        Net(lambda s, x: (s.a(x), s.b(x) * s.a.weight.mean()), a=nn.Linear(6, 3), b=nn.Linear(6, 3))
    )
    assert _layers(_merged(net.double(), noise(2, 6))) == {"Linear": 1}
