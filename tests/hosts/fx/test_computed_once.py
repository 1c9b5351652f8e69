"""What depends on parameters and buffers alone is computed once, and stored; what is returned is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.errors import NotEquivalent
from reparamkit.hosts.fx import computed_once
from tests.nets import Folded, Net, assert_same, fold, fold_and_compare, nodes_of, noise, randomised


def _operators(done: Folded) -> set[str]:
    nodes = nodes_of(done.module)
    return {str(n.target).split(".")[1] for n in nodes if n.op == "call_function" and "aten" in str(n.target)}


def _gathered(s: Any, x: Tensor) -> Tensor:
    bias = s.table[s.index.view(-1)].view(4, 4, 2).permute(2, 0, 1).contiguous().unsqueeze(0)
    return (x + bias).softmax(-1)


def _masked(s: Any, x: Tensor) -> Tensor:
    return x.masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), -1e9).softmax(-1)


def _normalised(s: Any, x: Tensor) -> Tensor:
    return torch.einsum("bhij,kj->bhik", x.tanh(), F.normalize(s.embedding.weight, dim=-1))


def _rotated(s: Any, x: Tensor) -> Tensor:
    skew = s.skew - s.skew.t()
    eye = torch.eye(4, dtype=x.dtype)
    return x.tanh() * torch.linalg.solve(eye + skew, eye - skew)


def _positions(s: Any, x: Tensor) -> Tensor:
    places = torch.arange(4, dtype=x.dtype)
    return x.tanh() * torch.outer(places, places.add(1).log()).cos()


def _part_of_a_list(s: Any, x: Tensor) -> Tensor:
    first, second = s.pair.sigmoid().unbind(0)
    return x.tanh() * first + x.exp() * second


def _pair(forward: Any) -> Net:
    index = torch.randint(9, (4, 4), generator=torch.Generator().manual_seed(0))
    return randomised(
        Net(
            forward,
            table=nn.Parameter(noise(9, 2)),
            index=index,
            embedding=nn.Embedding(5, 4),
            skew=nn.Parameter(noise(4, 4)),
            pair=noise(2, 4, 4),
        )
    )


GONE = {
    _gathered: {"index", "permute", "clone", "unsqueeze", "view"},
    _masked: {"ones", "triu"},
    _normalised: {"linalg_vector_norm", "clamp_min", "div", "expand"},
    _rotated: {"eye", "linalg_solve", "transpose", "sub", "add"},
    _positions: {"arange", "log", "outer", "cos"},
    _part_of_a_list: {"sigmoid", "unbind"},
}


@pytest.mark.parametrize("forward", GONE)
def test_it_is_not_computed_on_every_call(forward: Any) -> None:
    done = fold_and_compare(_pair(forward), noise(3, 2, 4, 4))
    assert not _operators(done) & GONE[forward]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_stored_is_what_the_network_computes_to_the_last_bit(dtype: torch.dtype) -> None:
    model = _pair(_gathered).to(dtype)
    done = fold(model, noise(3, 2, 4, 4, dtype=dtype), dtype=None)
    (stored,) = [value for name, value in done.module.state_dict().items() if "constant" in name]
    gathered = model.get_parameter("table")[model.get_buffer("index").view(-1)]
    assert torch.equal(stored, gathered.view(4, 4, 2).permute(2, 0, 1)[None])


def test_what_a_gradient_reaches_is_trained_and_the_rest_is_a_buffer() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return _gathered(s, x) * s.pair[0].sigmoid() + _masked(s, x)

    done = fold(_pair(forward), noise(3, 2, 4, 4))
    parameters = dict(done.module.named_parameters())
    assert [tuple(p.shape) for p in parameters.values()] == [(1, 2, 4, 4)]
    done.module(noise(3, 2, 4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in parameters.values())
    names = [name for name in done.module.state_dict() if name not in parameters]
    assert len(names) == 1  # the mask is computed from nothing that is saved
    assert len(list(done.module.named_buffers())) == 2


def test_a_frozen_parameter_stays_frozen() -> None:
    model = _pair(_gathered)
    model.table.requires_grad_(False)
    done = fold(model, noise(3, 2, 4, 4))
    assert not any(p.requires_grad for p in done.module.parameters())


@pytest.mark.parametrize("view", [False, True])
def test_what_the_caller_gets_is_computed_on_every_call(view: bool) -> None:
    def forward(s: Any, x: Tensor) -> Any:
        bias = s.table.sigmoid()
        return x + bias[:4, :1], bias.t()[0] if view else bias

    done = fold(_pair(forward), noise(3, 2, 4, 4))
    x = noise(3, 2, 4, 4)
    with torch.no_grad():
        expected = copy.deepcopy(done.module(x))
        done.module(x)[1].zero_()
        assert_same(expected, done.module(x), 0.0)


def test_a_large_value_made_of_little_is_not_stored() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return x.tanh() + torch.outer(s.long, s.long).sigmoid()

    model = Net(forward, long=noise(1100))
    assert "sigmoid" in _operators(fold(model, noise(1100, 1100)))
    assert "sigmoid" not in _operators(fold(Net(forward, long=noise(50)), noise(50, 50)))


def test_an_expanded_view_is_stored_as_what_it_shows() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return x.tanh() + s.row.sigmoid().expand(64, 64)

    done = fold_and_compare(Net(forward, row=noise(64)), noise(64, 64))
    assert [tuple(v.shape) for v in done.module.state_dict().values()] == [(64,)]


def test_views_of_what_is_stored_already_are_not_stored_again() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return x.tanh() + s.table.t()[0][:4]

    done = fold_and_compare(_pair(forward), noise(3, 4))
    assert list(done.module.state_dict()) == ["table"]


def test_random_numbers_stay_random() -> None:
    done = fold(Net(lambda s, x: x.tanh() + torch.rand(4, dtype=x.dtype)), noise(3, 4))
    assert not torch.equal(done.module(noise(3, 4)), done.module(noise(3, 4)))


def test_a_buffer_that_changes_is_no_constant() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.count += 1
        return x.tanh() * s.count.sigmoid()

    done = fold_and_compare(Net(forward, count=torch.zeros(4, dtype=torch.float64)), noise(3, 4))
    done.compare(noise(3, 4, seed=1))


def test_another_network_s_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = computed_once.Computed

    def spoilt(node: Any, value: Tensor, trained: bool, persistent: bool) -> Any:
        return honest(node, value * 1.001 if value.is_floating_point() else value, trained, persistent)

    monkeypatch.setattr(computed_once, "Computed", spoilt)
    with pytest.raises(NotEquivalent, match="constant"):
        fold(_pair(_gathered), noise(3, 2, 4, 4))
