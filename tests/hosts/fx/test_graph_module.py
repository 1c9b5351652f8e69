"""A folded module is a module: what copies and pickles of one keep."""

from __future__ import annotations

import copy
import operator
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import reparamkit as rk
from reparamkit.hosts.fx.graph_module import FoldedGraph, _Operator, _target_read
from tests.nets import Net, assert_same, noise, randomised

X = noise(2, 3, 6, 5, dtype=torch.float32)
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
}
each_copy = pytest.mark.parametrize("how", COPIES)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.narrow = nn.Conv2d(3, 4, 1)
        self.register_buffer("hidden", torch.arange(1.0, 5.0).view(4, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.norm(self.wide(x)) + self.narrow(x)).relu() * self.hidden
        return y


def folded(model: nn.Module | None = None) -> Any:
    return rk.fold(randomised(model or Branches()), X, verify=False).module


def _double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 2


@each_copy
def test_hooks_and_attributes_are_kept(how: str) -> None:
    module = folded()
    expected = module(X) * 2
    module.register_forward_hook(_double)
    module.mark = {"of": "the user"}
    duplicate = COPIES[how](module)
    assert_same(expected.detach(), duplicate(X).detach())
    assert duplicate.mark == {"of": "the user"}
    assert isinstance(duplicate, FoldedGraph)
    assert repr(duplicate) == repr(module)


@each_copy
def test_frozen_weights_stay_frozen(how: str) -> None:
    module = folded()
    next(module.parameters()).requires_grad_(False)
    wanted = [p.requires_grad for p in module.parameters()]
    assert [p.requires_grad for p in COPIES[how](module).parameters()] == wanted


def test_a_shallow_copy_shares_its_weights_and_nothing_else() -> None:
    module = folded()
    duplicate = copy.copy(module)
    assert [id(p) for p in module.parameters()] == [id(p) for p in duplicate.parameters()]
    duplicate.extra = nn.Parameter(torch.ones(1))
    duplicate.register_buffer("more", torch.ones(1), persistent=False)
    del duplicate.hidden
    assert "extra" not in dict(module.named_parameters())
    assert module._non_persistent_buffers_set == {"hidden"}
    module(X)


class Holder(nn.Module):
    """Holds a module twice, and one of its weights."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.same = next(inner.parameters())
        self.again = inner


def test_a_module_inside_another_keeps_what_they_share() -> None:
    for how in ("deepcopy", "pickle"):
        duplicate = COPIES[how](Holder(folded()))
        assert duplicate.same is next(duplicate.inner.parameters())
        assert duplicate.again is duplicate.inner


@each_copy
def test_a_copy_can_be_edited(how: str) -> None:
    module = folded()
    expected = module(X).detach()
    duplicate = COPIES[how](module)
    output = duplicate.graph.output_node()
    with duplicate.graph.inserting_before(output):
        value = output.args[0][0]
        output.args = ((duplicate.graph.call_function(operator.neg, (value,)),),)
    duplicate.recompile()
    assert_same(-expected, duplicate(X).detach())
    assert_same(expected, module(X).detach())


@each_copy
def test_graphs_inside_a_graph(how: str) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.norm(self.conv(x))
        made = torch.zeros(x.shape[0], 1, 1, 1)
        return torch.cond(y.sum() > 0, lambda a: a * self.scale + made, lambda a: a - 1, (y,))

    model = Net(
        forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), scale=torch.arange(1.0, 5.0).view(4, 1, 1)
    )
    module = COPIES[how](folded(model))
    children = [child for child in module.modules() if isinstance(child, fx.GraphModule)]
    assert len(children) == 3
    assert all(isinstance(child, FoldedGraph) for child in children)
    for sign in (1, -1):
        y = model.get_submodule("norm")(model.get_submodule("conv")(X * sign)).detach()
        expected = y * model.get_buffer("scale") if y.sum() > 0 else y - 1
        with torch.no_grad():
            assert_same(expected, module(X * sign), 1e-5)


MODULE = """
import dataclasses, torch
from torch import nn

@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    size: int

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.rnn = nn.LSTM(4, 2, batch_first=True)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return Answer(self.rnn(y.flatten(2).transpose(1, 2))[0], 3)
"""
READER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
module = torch.load(sys.argv[1] + "/net.pt", weights_only=False)
answer = module(torch.ones(3, 3, 6, 5))
print(type(answer).__name__, tuple(answer.logits.shape), answer.size, f"{answer.logits.sum().item():.3f}")
"""


@pytest.mark.slow
def test_a_file_is_read_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output of a class of the user's, which that process has never told torch about."""
    (tmp_path / "theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import theirs  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model = theirs.Network().eval()
    rk.fold(model, X, verify=False).save(tmp_path / "net.pt")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-900:]
    with torch.no_grad():
        total = model(torch.ones(3, 3, 6, 5)).logits.sum().item()
    assert done.stdout.split()[0] == "Answer"
    assert done.stdout.split()[-1] == f"{total:.3f}"
    assert done.stdout.split()[-2] == "3"


def test_an_operator_that_is_not_installed_is_named() -> None:
    for target in (_Operator("aten::no_such", "default"), _Operator("nobody::made", "default")):
        with pytest.raises(RuntimeError, match=r"needs the operator .*, which is not installed: import"):
            _target_read(target)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_that_the_graph_makes_follow_the_weights(dtype: torch.dtype) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        made = torch.zeros(x.shape[0], 4, 1, 1, dtype=x.dtype) + torch.arange(x.shape[-1], dtype=x.dtype)
        return self.norm(self.conv(x)) + made, torch.ones(x.shape[0], dtype=torch.int32)

    module = folded(Net(forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    expected = module(X)[0].detach()
    for _ in range(2):
        real, whole = copy.deepcopy(module).to(dtype)(X.to(dtype))
        assert (real.dtype, whole.dtype) == (dtype, torch.int32)
        assert_same(expected, module.to(dtype).float()(X)[0].detach(), 5e-2)
