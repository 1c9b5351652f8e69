"""Networks that look at, or change, their own weights; and arguments that are called like builtins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import Net, assert_same, noise, randomised

X = noise(2, 3, 6, 5, dtype=torch.float32)


def _net(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A convolution, a norm, and what else the forward needs; float32."""
    torch.manual_seed(0)
    return Net(
        forward,
        conv=randomised(nn.Conv2d(3, 4, 3, padding=1)),
        norm=randomised(nn.BatchNorm2d(4)),
        side=randomised(nn.Conv2d(3, 4, 1), seed=1),
        **parts,
    ).eval()


def _weights(model: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def _assert_folds(model: nn.Module, example: Any = X, **options: Any) -> rk.Folded:
    """Folded, and the model as it was."""
    before, there = _weights(model), [id(p) for p in model.parameters()]
    folded = rk.fold(model, example, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(model), strict=True))
    assert there == [id(p) for p in model.parameters()]
    return folded


# Decisions by values that are known


def _by_a_gate(self: Any, x: Tensor) -> Tensor:
    y = self.norm(self.conv(x))
    if self.gate:
        y = y * self.gate
    return y


def _by_a_computed_value(self: Any, x: Tensor) -> Tensor:
    y = self.norm(self.conv(x))
    if (self.conv.weight.abs() > 0.1).float().mean() > 0.2 and self.gate.sigmoid().item() < 0.9:
        y = y + self.side(x)
    return y


def _by_a_loop(self: Any, x: Tensor) -> Tensor:
    y = self.norm(self.conv(x))
    for _ in range(int(self.count)):
        y = y * 1.5
    return y


def _by_a_list(self: Any, x: Tensor) -> Tensor:
    return self.norm(self.conv(x))[:, self.order.argsort().tolist()]


def _by_a_constant(self: Any, x: Tensor) -> Tensor:
    return self.norm(self.conv(x)) * (2.0 if torch.tensor(3.0) > self.gate else 1.0)


DECIDED: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "a gate": (_by_a_gate, {"gate"}),
    "a computed value": (_by_a_computed_value, {"gate", "conv.weight"}),
    "a loop": (_by_a_loop, {"count"}),
    "a list": (_by_a_list, {"order"}),
    "a constant": (_by_a_constant, {"gate"}),
}


@pytest.mark.diagonal
@pytest.mark.parametrize("gate", [0.0, 2.0])
@pytest.mark.parametrize("name", DECIDED)
def test_decisions_by_weights_are_taken(name: str, gate: float) -> None:
    forward, names = DECIDED[name]
    model = _net(
        forward,
        gate=nn.Parameter(torch.full((1,), gate)),
        count=torch.tensor(2),
        order=torch.tensor([0.3, 0.1, 0.9, 0.5]),
    )
    folded = _assert_folds(model)
    assert folded.folds
    assert folded.sizes == "free batch and spatial sizes"
    (note,) = (n for n in folded.notes if "branches on the values of its own weights" in n)
    assert set(note.partition("(")[2].partition(")")[0].split(", ")) <= names
    for x in (X, noise(1, 3, 4, 9, dtype=torch.float32)):
        with torch.no_grad():
            assert_same(model(x), folded.module(x), 1e-5)


def _by_an_input(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) * 2 if self.gate and x.mean() > 0 else self.conv(x)


def _by_chance(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) * 2 if torch.rand_like(self.gate) > 0.5 else self.conv(x)


def _by_a_size(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) * 2 if (self.gate * x.shape[0]).sum() > 3 else self.conv(x)


def _by_a_counter(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x) * 2 if self.count > 2 else self.conv(x)
    self.count += 1
    return y


def _by_a_counter_read_later(self: Any, x: Tensor) -> Tensor:
    self.count.add_(1)
    return self.conv(x) * 2 if self.count.view(1)[0] > 2 else self.conv(x)


@pytest.mark.parametrize(
    "forward",
    [_by_an_input, _by_chance, _by_a_counter, _by_a_counter_read_later],
    ids=lambda f: f.__name__.strip("_"),
)
def test_other_decisions_are_refused_with_their_line(forward: Callable[..., Any]) -> None:
    model = _net(forward, gate=nn.Parameter(torch.ones(1)), count=torch.tensor(2))
    with pytest.raises(rk.CannotCapture, match="control flow depends on the data") as caught:
        _assert_folds(model)
    line = "of test_own_weights.py: `" in str(caught.value)
    assert line or "'count', which it changes when it runs" in str(caught.value)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_size_in_a_decision_is_not_taken_for_known(batch: int, subtests: pytest.Subtests) -> None:
    """It is refused, or the size is held: never answered for another one."""
    model = _net(_by_a_size, gate=nn.Parameter(torch.ones(1)))
    try:
        folded = _assert_folds(model, X[:1].repeat(batch, 1, 1, 1))
    except rk.CannotCapture:
        return
    for other in (1, 2, 3, 4, 5):
        with subtests.test(str(other)):
            x = noise(other, 3, 6, 5, dtype=torch.float32)
            try:
                found = folded.module(x)
            except ValueError:
                continue
            with torch.no_grad():
                assert_same(model(x), found.detach(), 1e-5)


# Networks that change their own weights


def _puts_a_kernel_together(self: Any, x: Tensor) -> Tensor:
    self.whole.weight.data = self.conv.weight + F.pad(self.side.weight, (1, 1, 1, 1))
    self.whole.bias.data = self.conv.bias + self.side.bias
    return self.norm(self.whole(x))


def _sets_a_transposed_one(self: Any, x: Tensor) -> Tensor:
    self.whole.weight.data = self.conv.weight.data.flip(-1) * 0.5
    return self.norm(self.whole(x)) + self.side(x)


def _clamps(self: Any, x: Tensor) -> Tensor:
    self.conv.weight.data.clamp_(-0.1, 0.1)
    return self.norm(self.conv(x)) + self.side(x)


def _normalises(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.side.weight.copy_(F.normalize(self.side.weight, dim=1))
    return self.norm(self.conv(x)) + self.side(x)


def _reads_data(self: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, self.conv.weight.data * 2, self.conv.bias.data, padding=1)


SETTLING = [_puts_a_kernel_together, _sets_a_transposed_one, _clamps, _normalises, _reads_data]


@pytest.mark.diagonal
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("forward", SETTLING, ids=lambda f: f.__name__.strip("_"))
def test_weights_that_settle(forward: Callable[..., Any], verify: bool) -> None:
    model = _net(forward, whole=randomised(nn.Conv2d(3, 4, 3, padding=1), seed=7))
    folded = _assert_folds(model, verify=verify)
    oracle = copy.deepcopy(model)
    for x in (X, noise(3, 3, 5, 4, dtype=torch.float32), X):
        with torch.no_grad():
            assert_same(oracle(x), folded.module(x), 1e-5)


def _grows(self: Any, x: Tensor) -> Tensor:
    bias = self.conv.bias
    bias += self.side.bias
    return F.conv2d(x, self.conv.weight, bias)


def _decays(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.conv.weight.mul_(0.5)
    return self.conv(x)


def _drifts(self: Any, x: Tensor) -> Tensor:
    self.whole.weight.data = self.whole.weight.data * 0.9 + self.conv.weight.data * 0.1
    return self.whole(x)


@pytest.mark.parametrize("forward", [_grows, _decays, _drifts], ids=lambda f: f.__name__.strip("_"))
def test_weights_that_change_with_every_run_are_named(forward: Callable[..., Any]) -> None:
    model = _net(forward, whole=randomised(nn.Conv2d(3, 4, 3, padding=1), seed=7))
    with pytest.raises(rk.CannotCapture, match=r"changes its own weights.*answers otherwise each time"):
        _assert_folds(model)


# Arguments that are called like builtins


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, input: Tensor, filter: Tensor, *, max: Tensor, type: Any = None) -> Tensor:
        y = self.conv(input)
        y[:, 0] = 1.0
        y[:, :, 0, :].mul_(2)
        return y * filter + max


class Bordered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (1, 1, 1, 1))
        y[:, :, 0, :] = 1.0
        return y


def test_an_argument_called_input_and_a_write_in_place() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Bordered()))
    folded = _assert_folds(model)
    assert len(folded.folds) == 1
    assert folded.parts == ()
    with torch.no_grad():
        assert_same(model(X), folded.module(X), 1e-5)
        assert_same(model(input=X), folded.module(input=X), 1e-5)


def test_arguments_called_like_builtins(tmp_path: Any) -> None:
    model = randomised(Named())
    given = {"input": X, "filter": torch.ones(1), "max": torch.full((1,), 2.0)}
    folded = _assert_folds(model, given)
    with torch.no_grad():
        assert_same(model(**given), folded.module(**given), 1e-5)
    folded.save(tmp_path / "net.pt2", tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    with torch.no_grad():
        assert_same(model(**given), again(**given), 1e-5)


# Buffers that share memory


def _shared(kind: str) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if "write" in kind:
            self.whole.add_(1)
        return self.conv(x) * self.part.sum()

    whole = torch.arange(1.0, 5.0)
    part = {"a slice": whole[:2], "a view": whole.view(2, 2), "itself": whole}[kind.partition(",")[0]]
    return _net(forward, whole=whole, part=part)


@pytest.mark.parametrize("kind", ["a slice", "a view", "itself"])
def test_buffers_that_share_memory(kind: str) -> None:
    model = _shared(kind)
    folded, oracle = _assert_folds(model), copy.deepcopy(model)
    for _ in range(3):
        with torch.no_grad():
            assert_same(oracle(X), folded.module(X), 1e-5)


@pytest.mark.parametrize("kind", ["a slice, write", "a view, write", "itself, write"])
def test_a_write_into_a_buffer_that_another_is_a_view_of(kind: str) -> None:
    with pytest.raises(rk.CannotCapture, match=r"'part' and 'whole' share memory|'whole' and 'part' share"):
        _assert_folds(_shared(kind))


@pytest.mark.parametrize("writes", ["a view of it", "it", "the weight"])
def test_a_part_that_is_written_into_from_outside_is_left(writes: str) -> None:
    class Gate(nn.Module):
        outer: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.trunk = _net(lambda self, x: self.norm(self.conv(x)) * self.scale, scale=torch.ones(2)[:1])
            self.register_buffer("outer", self.trunk.get_buffer("scale").view(1))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                written = {
                    "a view of it": self.outer,
                    "it": self.trunk.get_buffer("scale"),
                    "the weight": self.trunk.get_parameter("conv.bias"),
                }
                written[writes].add_(1)
            y = self.trunk(x)
            return y * 2 if y.sum() > 0 else y

    with pytest.raises(rk.CannotCapture):  # nothing else in it folds
        rk.fold(Gate().eval(), X, verify=False)
