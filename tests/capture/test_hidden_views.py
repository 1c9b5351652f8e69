"""Operators that return views of their inputs: every sample of torch's own that does, written through."""

from __future__ import annotations

import contextlib
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from reparamkit.capture.export import capture
from reparamkit.capture.functional import _FRESH, _may_alias
from reparamkit.errors import CannotCapture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Net, fold, noise, randomised


def _through(view: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Any]:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.conv(x)
        z = view(y)
        z.mul_(2)
        return y + 1, z

    return forward


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout of nothing": lambda y: F.dropout(y, 0.0, True),
    "channel dropout of nothing": lambda y: F.dropout2d(y, 0.0, True),
    "alpha dropout of nothing": lambda y: F.alpha_dropout(y, 0.0, True),
    "feature dropout of nothing": lambda y: F.feature_alpha_dropout(y, 0.0, True),
    "einsum with dots": lambda y: torch.einsum("nc...->cn...", y),
    "einsum with dots and no arrow": lambda y: torch.einsum("b...a", y),
    "einsum of letters alone": lambda y: torch.einsum("nchw->whcn", y),
    "einsum of a diagonal": lambda y: torch.einsum("...hh->h...", y[..., :6, :6]),
    "einsum with capitals": lambda y: torch.einsum("NCab->abCN", y),
    "einsum that sums, a copy": lambda y: torch.einsum("nchw->nch", y),
    "unsafe_split": lambda y: torch.unsafe_split(y, 2, 1)[1],
    "unsafe_chunk": lambda y: torch.unsafe_chunk(y, 2, 1)[0],
    "unsafe_split_with_sizes": lambda y: torch.unsafe_split_with_sizes(y, [1, 3], 1)[1],
    "meshgrid of one": lambda y: torch.meshgrid(y[0, 0, 0], indexing="ij")[0],
    "meshgrid with an axis of one": lambda y: torch.meshgrid(y[0, 0, 0], y[0, 0, 0, :1], indexing="xy")[0],
    "pixel shuffle, a copy": lambda y: F.pixel_shuffle(y, 2),
    "padding of nothing": lambda y: F.pad(y, (0, 0, 0, 0)),
    "interpolation to the same size": lambda y: F.interpolate(y, scale_factor=1.0),
    "pooling with windows of one": lambda y: F.max_pool2d(F.avg_pool2d(y, 1), 1),
    "type_as": lambda y: y.type_as(y),
    "to another": lambda y: y.to(y),
    "nan_to_num, a copy": torch.nan_to_num,
    "real": torch.real,
    "conj of what is real": torch.conj_physical,
    "squeeze of nothing": lambda y: y.squeeze(1),
    "sum_to_size of all": lambda y: y.sum_to_size(y.shape),
    "atleast_2d": torch.atleast_2d,
    "broadcast_tensors": lambda y: torch.broadcast_tensors(y, y[:1])[0],
    "cartesian_prod of one": lambda y: torch.cartesian_prod(y[0, 0, 0]),
    "view_as_real": lambda y: torch.view_as_real(torch.view_as_complex(y.reshape(2, 4, 6, 3, 2))),
    "chunk of one": lambda y: y.chunk(1, 1)[0],
    "Identity": nn.Identity(),
    "positive": torch.positive,
}


@pytest.mark.diagonal(11)
@pytest.mark.parametrize("name", VIEWS)
def test_what_is_written_through_a_view_shows(name: str) -> None:
    net = Net(_through(VIEWS[name]), conv=randomised(nn.Conv2d(3, 4, 3, padding=1)))
    fold(net, noise(2, 3, 6, 6)).compare(noise(2, 3, 6, 6, seed=1))


# torch's own samples of every operator


def _operators(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch's table of operators with samples. It imports a package that only torch's own tests use."""
    if "expecttest" not in sys.modules:
        absent: Any = types.ModuleType("expecttest")
        absent.TestCase = unittest.TestCase
        monkeypatch.setitem(sys.modules, "expecttest", absent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return [op for op in op_db if torch.float32 in op.supported_dtypes("cpu") and "jiterator" not in op.name]


def _calls(operator: Any, at_most: int) -> Iterator[tuple[Callable[..., Any], list[Tensor]]]:
    """The operator as a function of tensors alone, and the tensors of one sample."""
    try:
        samples = list(operator.sample_inputs("cpu", torch.float32))
    except Exception:  # some ask for packages that are not there
        return
    for sample in samples[:at_most]:
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        def call(*given: Tensor, leaves: Any = leaves, spec: Any = spec) -> Any:
            left = iter(given)
            value, args, kwargs = pytree.tree_unflatten(
                [next(left) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec
            )
            return operator(value, *args, **kwargs)

        if tensors and all(t.layout is torch.strided for t in tensors):
            yield call, tensors


def _memories(value: Any) -> set[int]:
    tensors = [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor) and t.layout is torch.strided]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel()}


class _Watched(fx.Interpreter):
    """Runs a captured graph and notes every operator whose result shares memory that it was not said to."""

    def __init__(self, module: fx.GraphModule, seen: set[str], wrong: set[str]) -> None:
        super().__init__(module)
        self.seen, self.wrong = seen, wrong

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(n.target, OpOverload) and not n.target._schema.is_mutable:
            self.seen.add(str(n.target))
            said = _may_alias(n, n.target)
            for operand in n.all_input_nodes:
                if operand not in said and _memories(self.env[operand]) & _memories(result):
                    self.wrong.add(str(n.target))
        return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_operator_shares_memory_that_is_taken_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    wrong: set[str] = set()
    for operator in _operators(monkeypatch):
        for call, tensors in _calls(operator, 12):
            try:
                with torch.no_grad():
                    graph = make_fx(call, pre_dispatch=True)(*tensors)
            except Exception:  # samples that raise, or that read values
                continue
            with contextlib.suppress(RuntimeError):  # some samples reach beyond the memory of a copy
                _Watched(graph, seen, wrong).run(*[t.clone() for t in tensors])
    assert wrong == set()
    assert len(seen) > 500
    composite = {name.split(".")[1] for name in seen}
    assert composite >= _FRESH - {"upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"}


_RANDOM = frozenset(("cauchy", "exponential", "geometric", "log_normal", "uniform", "normal"))


class _Writing(nn.Module):
    """Writes into whatever an operator returns."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *given: Tensor) -> Any:
        copies = [t.clone() for t in given]
        results = [t for t in pytree.tree_leaves(self.call(*copies)) if isinstance(t, Tensor)]
        for result in results:
            if result.is_floating_point() or result.is_complex():
                result.mul_(3)
        return [*copies, *results]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_into_the_result_of_any_operator_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: set[str] = set()
    for operator in _operators(monkeypatch):
        tried = 0
        for call, tensors in _calls(operator, 40):
            try:
                copies = [t.clone() for t in tensors]
                views = _memories(call(*copies)) & _memories(copies)
                expected = _Writing(call)(*tensors)
            except Exception:  # into an expanded tensor nobody can write
                continue
            if not views or operator.name in _RANDOM:
                continue
            tried += 1
            if tried > 3:
                break
            try:
                program = capture(_Writing(call).eval(), tuple(tensors), dynamic=False)
            except CannotCapture:
                continue
            found = fold_program(program).module(*tensors)
            assert _alike(expected, found), operator.name
            checked.add(operator.name)
    assert len(checked) > 40


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True))
