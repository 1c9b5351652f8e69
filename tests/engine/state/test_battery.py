"""Everything that is done to a trained module, done to folded ones: copies, files, precisions, training.

Sixty and more networks: some of them by default (those that were found broken once), all under the slow
mark.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import reparamkit as rk
from tests.engine.state.networks import NETWORKS
from tests.nets import assert_same

_ALWAYS = (
    "LSTM",
    "hidden buffers",
    "canvas",
    "slice set to another",
    "running mean",
    "dataclass",
    "constant",
)
NAMES = [
    name if name in _ALWAYS or number % 40 == 5 else pytest.param(name, marks=pytest.mark.slow)
    for number, name in enumerate(NETWORKS)
]
BAR = 1e-5
_EPS = torch.finfo(torch.float32).eps  # the folded weights were rounded to it
pytestmark = pytest.mark.filterwarnings(
    "ignore:RNN module weights are not part of single contiguous chunk",
    "ignore:.*LeafSpec:FutureWarning",
)


class Case:
    """A network, its fold, and inputs."""

    def __init__(self, name: str) -> None:
        self.original, self.inputs = NETWORKS[name]()
        self.folded = rk.fold(copy.deepcopy(self.original), self.inputs, verify=False)
        self.module = self.folded.module

    def run(self, module: nn.Module, runs: int = 2) -> Any:
        """What a copy of the module answers when it is called several times in a row."""
        module = copy.deepcopy(module)
        with torch.no_grad():
            return [module(*copy.deepcopy(self.inputs)) for _ in range(runs)]


_cases: dict[str, Case] = {}


def case(name: str) -> Case:
    if name not in _cases:
        _cases[name] = Case(name)
    return _cases[name]


def _reloaded(module: nn.Module) -> nn.Module:
    archive = io.BytesIO()
    torch.save(module, archive)
    archive.seek(0)
    loaded: nn.Module = torch.load(archive, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "file": _reloaded,
    "copy of a pickle of a copy": lambda m: copy.deepcopy(pickle.loads(pickle.dumps(copy.deepcopy(m)))),
}


@pytest.mark.parametrize("name", NAMES)
def test_copies(name: str) -> None:
    net = case(name)
    expected = net.run(net.original)
    assert_same(expected, net.run(net.module), BAR)
    state = net.module.state_dict()
    for how, make in COPIES.items():
        duplicate = make(net.module)
        assert type(duplicate).__name__ == type(net.module).__name__
        assert list(duplicate.state_dict()) == list(state), how
        assert [n for n, _ in duplicate.named_modules()] == [n for n, _ in net.module.named_modules()]
        assert [n for n, _ in duplicate.named_buffers()] == [n for n, _ in net.module.named_buffers()]
        assert duplicate.graph is not net.module.graph
        assert duplicate.training == net.module.training
        assert_same(expected, net.run(duplicate), BAR)
        shared = {t.data_ptr() for t in state.values()} & {
            t.data_ptr() for t in duplicate.state_dict().values()
        }
        assert bool(shared) == (how == "copy" and bool(state)), how
        if how == "copy":
            continue
        # Into each other and back, strictly, with numbers that would show.
        with torch.no_grad():
            for tensor in duplicate.state_dict().values():
                tensor.zero_()
        duplicate.load_state_dict(state)
        assert_same(expected, net.run(duplicate), BAR)
        target = copy.deepcopy(net.module)
        target.load_state_dict(duplicate.state_dict())
        assert_same(expected, net.run(target), BAR)


@pytest.mark.parametrize("name", NAMES)
def test_files(name: str, tmp_path: Path) -> None:
    net = case(name)
    net.folded.save(tmp_path / "net.pt")
    loaded = torch.load(tmp_path / "net.pt", weights_only=False)
    assert_same(net.run(net.original), net.run(loaded), BAR)


def _in(dtype: torch.dtype, tree: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, tree)


@pytest.mark.parametrize("name", NAMES)
def test_other_precisions(name: str) -> None:
    """Where the original runs in it, the fold does, and is off by as little."""
    net = case(name)
    try:
        with torch.no_grad():
            exact = copy.deepcopy(net.original).double()(*_in(torch.float64, copy.deepcopy(net.inputs)))
    except RuntimeError:  # it names float32
        return
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        inputs = _in(dtype, net.inputs)
        try:
            with torch.no_grad():
                own = copy.deepcopy(net.original).to(dtype)(*copy.deepcopy(inputs))
        except (RuntimeError, NotImplementedError):
            continue
        with torch.no_grad():
            found = copy.deepcopy(net.module).to(dtype)(*copy.deepcopy(inputs))
        leaves = zip(*(pytree.tree_leaves(tree) for tree in (exact, own, found)), strict=True)
        for truth, theirs, ours in leaves:
            if not isinstance(truth, Tensor) or not truth.is_floating_point():
                continue
            assert ours.dtype in (theirs.dtype, dtype)  # its constants are buffers, and follow
            scale = max(float(truth.abs().max()), 1e-30)
            off, allowed = ((t.double() - truth).abs().max().item() / scale for t in (ours, theirs))
            assert off <= 4 * allowed + 8 * max(_EPS, torch.finfo(ours.dtype).eps), (dtype, off, allowed)


@pytest.mark.parametrize("name", NAMES)
def test_compiled(name: str) -> None:
    net = case(name)
    torch.compiler.reset()
    module = copy.deepcopy(net.module)
    compiled = torch.compile(module, backend="eager")
    with torch.no_grad():
        found = [compiled(*copy.deepcopy(net.inputs)) for _ in range(2)]
    assert_same(net.run(net.original), found, BAR)


def _loss(result: Any) -> Tensor:
    leaves = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()]
    return torch.stack([t.square().sum() * (i + 1) for i, t in enumerate(leaves)]).sum()


def _gradients(module: nn.Module, inputs: Any) -> tuple[list[Tensor | None], dict[str, Tensor | None]]:
    """Of the inputs, and of the parameters by name."""
    leaves, spec = pytree.tree_flatten(copy.deepcopy(inputs))
    real = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    for leaf in real:
        leaf.requires_grad_()
    given = [leaf * 1 if any(leaf is r for r in real) else leaf for leaf in leaves]
    _loss(module(*pytree.tree_unflatten(given, spec))).backward()
    return [leaf.grad for leaf in real], {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step(name: str) -> None:
    """The gradients of the original, where it has any; then a step, and a second one."""
    net = case(name)
    module, original = copy.deepcopy(net.module), copy.deepcopy(net.original)
    module.train()
    found = _gradients(module, net.inputs)
    try:
        expected = _gradients(original, net.inputs)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error) and "view" not in str(error):
            raise
    else:
        assert_same([g for g in expected[0] if g is not None], [g for g in found[0] if g is not None], 1e-4)
        assert [g is None for g in expected[0]] == [g is None for g in found[0]]
        kept = _unchanged(net)
        for parameter in kept:
            theirs, ours = expected[1][parameter], found[1][parameter]
            assert (theirs is None) == (ours is None), parameter
            if theirs is not None:
                assert_same(theirs, ours, 1e-4)
    trained = [p for p in module.parameters() if p.grad is not None]
    before = net.run(module, 1)
    if trained:
        torch.optim.SGD(trained, lr=1e-3).step()
        assert any(
            not torch.equal(a, b)
            for a, b in zip(pytree.tree_leaves(before), pytree.tree_leaves(net.run(module, 1)), strict=True)
            if isinstance(a, Tensor)
        )
        _gradients(module, net.inputs)


# Where a layer is used twice and one use is folded, what is left has the gradient of the other alone.
_USED_TWICE = ("side.", "next.")


def _unchanged(net: Case) -> list[str]:
    """Parameters that the fold has left as they were, and all uses of them."""
    theirs = dict(net.original.named_parameters())
    return [
        name
        for name, p in net.module.named_parameters()
        if not name.startswith(_USED_TWICE)
        and name in theirs
        and theirs[name].shape == p.shape
        and torch.equal(theirs[name], p)
    ]


def test_there_are_enough() -> None:
    assert len(NETWORKS) >= 60
