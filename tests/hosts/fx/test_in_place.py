"""The proof in place: what it holds, and that it refuses a finished graph that is off in one place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reparamkit.capture.export import capture
from reparamkit.errors import NotEquivalent
from reparamkit.hosts.fx.fold import Outcome, fold_program
from reparamkit.hosts.fx.write import Surgery
from tests.nets import Net, PairNet, noise, randomised

aten = torch.ops.aten


def _fold(net: nn.Module, *inputs: Tensor, dynamic: Any = False) -> Outcome:
    return fold_program(capture(randomised(net).eval(), inputs, dynamic=dynamic))


def _pieces() -> nn.Module:
    return Net(
        lambda s, x: [p.tanh() for p in s.norm(s.conv(x)).chunk(2, 1)],
        conv=nn.Conv2d(3, 4, 3),
        norm=nn.BatchNorm2d(4),
    )


def _swap_pieces(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is operator.getitem:
            node.args = (node.args[0], 1 - node.args[1])


def _swap_readers(module: fx.GraphModule) -> None:
    first, second = (n for n in module.graph.nodes if n.target is aten.tanh.default)
    first.args, second.args = second.args, first.args


def _other_operator(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is aten.tanh.default:
            node.target = aten.sigmoid.default


def _weights_off(module: fx.GraphModule) -> None:
    module.get_parameter("conv.weight").data[1] *= 1.001


def _bias_of_zero(module: fx.GraphModule) -> None:
    module.get_parameter("conv.bias").data.zero_()


def _one_result(module: fx.GraphModule) -> None:
    output = next(n for n in module.graph.nodes if n.op == "output")
    (results,) = output.args
    output.args = ((results[0], results[0]),)


def _argument(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is aten.chunk.default:
            node.args = (node.args[0], 2, 2)


def _no_guard(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "size_guards":
            module.graph.erase_node(node)


TAMPERED: dict[str, Callable[[fx.GraphModule], None]] = {
    "pieces swapped": _swap_pieces,
    "readers swapped": _swap_readers,
    "another operator": _other_operator,
    "weights off": _weights_off,
    "no bias": _bias_of_zero,
    "one result twice": _one_result,
    "another argument": _argument,
    "no guard": _no_guard,
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_finished_graph_that_is_off_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(2, 3, 8, 8, dtype=torch.float32)
    assert _fold(_pieces(), x, dynamic="auto").in_place
    module = Surgery.module

    def wrong(self: Surgery) -> fx.GraphModule:
        finished = module(self)
        TAMPERED[name](finished)
        return finished

    monkeypatch.setattr(Surgery, "module", wrong)
    with pytest.raises(NotEquivalent, match="mistake of reparamkit"):
        _fold(_pieces(), x, dynamic="auto")


@pytest.mark.parametrize(
    "read", [lambda s, x: (x.clone(), s.conv(x)), lambda s, x: [s.conv(x), x.clone().t()]]
)
def test_a_result_that_becomes_the_input_itself_is_refused(
    read: Callable[[Any, Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reparamkit.hosts.fx import read as reading

    make = lambda: Net(read, conv=nn.Linear(3, 4))  # noqa: E731
    x = noise(5, 3)
    assert _fold(make(), x).in_place
    monkeypatch.setattr(reading, "shown_nodes", lambda graph: set[fx.Node]())
    with pytest.raises(NotEquivalent, match="shares memory"):
        _fold(make(), x)


def test_what_is_written_is_compared_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        before = s.seen.clone()
        s.seen.add_(s.conv(x).mean((0, 2, 3)))
        return before

    make = lambda: Net(forward, conv=nn.Conv2d(3, 4, 3), seen=torch.ones(4))  # noqa: E731
    x = noise(2, 3, 6, 6, dtype=torch.float32)
    assert _fold(make(), x).in_place
    module = Surgery.module

    def wrong(self: Surgery) -> fx.GraphModule:
        finished = module(self)
        for node in finished.graph.nodes:
            if node.target is aten.clone.default:
                node.replace_all_uses_with(node.args[0])
        return finished

    monkeypatch.setattr(Surgery, "module", wrong)
    with pytest.raises(NotEquivalent):
        _fold(make(), x)


HELD: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "a chain": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        (noise(1, 3, 6, 6),),
    ),
    "infinite values": (
        lambda: Net(
            lambda s, x: s.a(x).masked_fill(x > 0, -torch.inf).softmax(-1) + s.a(x), a=nn.Linear(4, 4)
        ),
        (noise(3, 4),),
    ),
    "values that are no numbers": (
        lambda: Net(lambda s, x: s.a(x).log() + 1.0, a=nn.Linear(4, 4)),
        (noise(3, 4),),
    ),
    "a choice": (
        lambda: Net(lambda s, x: s.a(x * 2.0).topk(2).indices, a=nn.Linear(4, 4)),
        (noise(3, 4),),
    ),
    "a random number": (
        lambda: Net(lambda s, x: s.a(x * 2.0) + torch.rand_like(x), a=nn.Linear(4, 4)),
        (noise(3, 4),),
    ),
    "a type of its own": (
        lambda: Net(
            lambda s, x: F.softmax(s.a(x * 2.0), -1, dtype=torch.float32).half().float(), a=nn.Linear(4, 4)
        ),
        (noise(3, 4),),
    ),
    "a constant example": (lambda: Net(lambda s, x: s.a(x * 2.0), a=nn.Linear(4, 4)), (torch.zeros(3, 4),)),
    "integers": (
        lambda: PairNet(lambda s, x, y: s.a(x)[y] * 2.0, a=nn.Linear(4, 4)),
        (noise(3, 4), torch.tensor([2, 0])),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HELD)
def test_right_folds_are_held(name: str, dtype: torch.dtype) -> None:
    build, given = HELD[name]
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in given)
    assert _fold(build().to(dtype), *inputs).in_place


def test_a_large_example_is_walked_without_keeping_its_values() -> None:
    """Every value is let go after its last reader: the peak does not grow with the depth."""
    net = nn.Sequential(*(m for _ in range(40) for m in (nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU())))
    from reparamkit.hosts.fx import in_place, walk

    walks: list[Any] = []

    class Recorded(walk.Walk):
        def _take(self, node: fx.Node, twin: list[fx.Node]) -> None:
            super()._take(node, twin)
            walks.append(sum(isinstance(v, Tensor) and v.numel() > 50 for v in self.old.values()))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(in_place, "Walk", Recorded)
        assert _fold(net, noise(1, 2, 8, 8, dtype=torch.float32)).in_place
    assert max(walks) <= 6
