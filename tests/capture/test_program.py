"""The captured program: its state, its sizes, one spelling for every operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program, program_of
from tests.nets import Net, PairNet, assert_same, fold, noise, randomised


def _captured(function: Callable[..., Any], *args: Tensor, dynamic: Any = False, **parts: Any) -> Program:
    return capture(Net(function, **parts).eval().double(), args, dynamic=dynamic)


def _operators(program: Program) -> list[str]:
    return [str(n.target).split(".")[1] for n in program.graph.nodes if n.op == "call_function"]


def test_the_state_is_the_very_tensors_of_the_model() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    program = capture(net, (noise(2, 3, 5, 5, dtype=torch.float32),), dynamic=False)
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean"):
        owner, _, leaf = name.rpartition(".")
        assert program.state[name].data_ptr() == getattr(net.get_submodule(owner), leaf).data_ptr()
    assert program.parameters == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert program.mutated == set()


def test_only_inputs_are_placeholders() -> None:
    program = _captured(
        lambda s, x: s.conv(x) + s.shift, noise(2, 3, 5, 5), conv=nn.Conv2d(3, 4, 3), shift=noise(1)
    )
    assert [n.name for n in program.graph.nodes if n.op == "placeholder"] == ["x"]
    names = {str(n.target) for n in program.graph.nodes if n.op == "get_attr"}
    assert names == {"conv.weight", "conv.bias", "shift"}
    assert all(program.is_constant(n) for n in program.graph.nodes if n.op == "get_attr")


def test_a_buffer_that_a_call_changes_is_no_constant() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.count.add_(1)
        return x * s.count

    program = _captured(forward, noise(2, 3), count=noise(1))
    assert program.mutated == {"count"}
    assert program.writes
    assert not any(program.is_constant(n) for n in program.graph.nodes if n.target == "count")


def test_a_buffer_outside_the_state_dict_stays_outside() -> None:
    net = Net(lambda s, x: F.gelu(x) * s.table)
    net.register_buffer("table", noise(3), persistent=False)
    done = fold(net, noise(2, 3))
    assert done.program.non_persistent == {"table"}
    assert done.module.state_dict() == {}
    done.compare(noise(2, 3))


def test_a_tensor_that_is_no_attribute_of_the_model_is_state_too() -> None:
    outside = noise(3, seed=5)
    done = fold(Net(lambda s, x: x.relu() * outside), noise(2, 3))
    done.compare(noise(2, 3))
    assert len(done.program.state) == 1


@pytest.mark.parametrize(
    ("dynamic", "shape", "sizes", "axes"),
    [
        ("auto", (2, 3, 6, 5), "free batch and spatial sizes", {0, 2, 3}),
        ("auto", (1, 3, 6, 5), "free batch and spatial sizes", {0, 2, 3}),
        ("batch", (2, 3, 6, 5), "free batch size", {0}),
        (False, (2, 3, 6, 5), "fixed sizes", set()),
        (None, (2, 3, 6, 5), "fixed sizes", set()),
    ],
)
def test_which_sizes_are_free_and_in_words(
    dynamic: Any, shape: tuple[int, ...], sizes: str, axes: set[int]
) -> None:
    program = _captured(lambda s, x: s.conv(x), noise(*shape), conv=nn.Conv2d(3, 4, 3), dynamic=dynamic)
    assert program.sizes == sizes
    assert set(program.axes.get(0, {})) == axes
    assert set(program.ranges) == set(program.axes.get(0, {}).values())


def test_a_size_that_the_network_bounds_has_its_bound() -> None:
    program = _captured(
        lambda s, x: s.conv(x) * (2 if x.shape[2] > 10 else 1),
        noise(2, 3, 6, 5),
        conv=nn.Conv2d(3, 4, 3),
        dynamic="auto",
    )
    symbol = program.axes[0][2]
    assert program.ranges[symbol][1] == 10
    assert program.ranges[program.axes[0][3]][1] is None


def test_two_inputs_of_one_size_share_its_symbol() -> None:
    net = PairNet(lambda s, x, y: x + y).eval()
    program = capture(net, (noise(2, 3, 6, 5), noise(2, 3, 6, 5)), dynamic="auto")
    assert program.axes[0] == program.axes[1]


SAME: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "a cast that is none": (lambda s, x: s.conv(x).to(torch.float64).double(), ["conv2d"]),
    "a view": (lambda s, x: s.conv(x).view(2, -1), ["conv2d", "reshape"]),
    "dropout that is off": (lambda s, x: F.dropout(s.conv(x), 0.3, False), ["conv2d"]),
    "a batch norm": (lambda s, x: s.norm(s.conv(x)), ["conv2d", "batch_norm"]),
    "in place": (lambda s, x: s.conv(x).mul_(2).add_(1), ["conv2d", "mul", "add"]),
}


@pytest.mark.parametrize("name", SAME)
def test_one_spelling_for_what_has_several(name: str) -> None:
    function, operators = SAME[name]
    program = _captured(function, noise(2, 3, 6, 5), conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))
    assert _operators(program) == operators


def test_a_decomposed_export_reads_as_the_plain_one() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).double()
    x = noise(2, 3, 6, 5)
    exported = torch.export.export(net, (x,), strict=False).run_decompositions({})
    assert _operators(program_of(exported, (x,), {}))[1:] == ["batch_norm", "relu"]
    core = torch.export.export(net, (x,), strict=False).run_decompositions()
    assert "batch_norm" in _operators(program_of(core, (x,), {}))


def _dict(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    return {"a": y, "b": [x, None, 3, (y.relu(), "text")], "c": True}


def test_outputs_keep_their_structure() -> None:
    done = fold(Net(_dict, conv=nn.Conv2d(3, 4, 3)), noise(2, 3, 6, 5))
    with torch.no_grad():
        assert_same(done.original(noise(2, 3, 6, 5)), done.module(noise(2, 3, 6, 5)))


def test_inputs_may_be_passed_by_name_and_nested() -> None:
    net = PairNet(lambda s, x, y: s.conv(x) + y["a"][0] * 2, conv=nn.Conv2d(3, 4, 1))
    x, y = noise(2, 3, 6, 5), {"a": [noise(2, 4, 6, 5, seed=1)]}
    done = fold(net, x, y=y)
    done.compare(x, y=y)


def _dropped_after_a_slice(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    y[:, :1] += 1
    return F.dropout(y, 0.3, False)


def _dropped_input(s: Any, x: Tensor) -> Tensor:
    x.add_(1)
    return s.drop(x)


@pytest.mark.parametrize("forward", [_dropped_after_a_slice, _dropped_input])
def test_an_output_that_is_dropout_switched_off_in_a_network_that_writes_through_views(
    forward: Callable[..., Any],
) -> None:
    done = fold(Net(forward, conv=nn.Conv2d(3, 4, 3), drop=nn.Dropout(0.3)), noise(2, 3, 6, 5))
    done.compare(noise(2, 3, 6, 5))
