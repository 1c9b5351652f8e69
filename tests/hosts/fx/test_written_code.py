"""The code of a folded graph calls the operators of its graph, and says so in torch's own words."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

import reparamkit as rk
from reparamkit.hosts.fx.graph_module import FoldedGraph
from reparamkit.hosts.fx.written_code import SPELT
from tests.nets import Net, nodes_of, noise, randomised

aten = torch.ops.aten
_END = sys.maxsize
X, Y, V = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6), torch.rand(4) + 0.5
CPU = torch.device("cpu")
M, W = torch.randn(2, 4, 4), torch.randn(3, 4, 1, 1)
CASES: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "abs.default": [((X,), {})],
    "add.Tensor": [((X, Y), {}), ((X, Y), {"alpha": 2}), ((X, 2), {}), ((X, 0.5), {"alpha": 3})],
    "adaptive_avg_pool1d.default": [((M, [2]), {}), ((M, [1]), {})],
    "adaptive_avg_pool2d.default": [((X, [1, 1]), {}), ((X, [2, 3]), {})],
    "arange.default": [((6,), {"dtype": torch.float32, "device": CPU, "pin_memory": False})],
    "arange.start": [((1, 4), {"dtype": torch.int64, "device": CPU, "pin_memory": False})],
    "batch_norm.default": [((X, V, V, V, V, False, 0.1, 1e-5, False), {})],
    "bmm.default": [((M, M), {})],
    "cat.default": [(([X, Y],), {}), (([X, Y], 1), {}), (([X, Y], -1), {})],
    "chunk.default": [((X, 2), {}), ((X, 2, 1), {})],
    "clamp.default": [((X, 0.0), {}), ((X, None, 1.0), {}), ((X, -1, 1), {}), ((X,), {"max": 6.0})],
    "clamp_min.default": [((X, 0), {}), ((X, 0.5), {})],
    "conv1d.default": [((M, torch.randn(3, 4, 2), None, [2], [1]), {}), ((M, torch.randn(3, 4, 2)), {})],
    "conv2d.default": [((X, W), {}), ((X, W, torch.randn(3), [2, 2], [1, 1], [1, 1], 1), {})],
    "conv3d.default": [((X[None], torch.randn(3, 2, 1, 1, 1), None, [1, 2, 2]), {})],
    "div.Tensor": [((X, Y), {}), ((X, 3), {})],
    "exp.default": [((X,), {})],
    "expand.default": [((V, [2, 4]), {}), ((V, [3, -1]), {})],
    "flatten.using_ints": [((X,), {}), ((X, 1), {}), ((X, 2, -1), {}), ((X,), {"start_dim": 2})],
    "full.default": [(([2, 3], 0.5), {"dtype": torch.float32, "device": CPU, "pin_memory": False})],
    "gelu.default": [((X,), {}), ((X,), {"approximate": "tanh"})],
    "hardswish.default": [((X,), {})],
    "layer_norm.default": [((X, [6]), {}), ((M, [4], V, V, 1e-6), {}), ((M, [4], V, V, 1e-6, False), {})],
    "linear.default": [((M, M[0]), {}), ((M, M[0], V), {})],
    "matmul.default": [((M, M), {}), ((M, V), {})],
    "mean.dim": [((X, [2, 3]), {}), ((X, [1], True), {}), ((X, [1]), {"dtype": torch.float64})],
    "mul.Tensor": [((X, Y), {}), ((X, 2), {}), ((X, 0.5), {})],
    "narrow.default": [((X, 1, 0, 2), {}), ((X, -1, 2, 3), {})],
    "neg.default": [((X,), {})],
    "ones.default": [(([4],), {"dtype": torch.bool, "device": CPU, "pin_memory": False})],
    "pad.default": [
        ((X, [1, 0]), {}),
        ((X, [1, 1, 2, 2], "reflect"), {}),
        ((X, [0, 1], "constant", 2.0), {}),
    ],
    "permute.default": [((X, [0, 2, 3, 1]), {})],
    "relu.default": [((X,), {})],
    "repeat.default": [((V, [2, 3]), {}), ((X, [1, 2, 1, 1]), {})],
    "reshape.default": [((X, [2, -1]), {}), ((X.transpose(1, 2), [8, 36]), {})],
    "rsqrt.default": [((V,), {})],
    "scaled_dot_product_attention.default": [
        ((M, M, M), {}),
        ((M, M, M, M, 0.0, False), {"scale": 0.3}),
        ((M, M, M), {"is_causal": True}),
    ],
    "select.int": [((X, 0, 1), {}), ((X, -1, 0), {})],
    "sigmoid.default": [((X,), {})],
    "silu.default": [((X,), {})],
    "softmax.int": [((X, -1), {}), ((X, 1, torch.float64), {})],
    "split.Tensor": [((X, 2), {}), ((X, 2, 1), {})],
    "split_with_sizes.default": [((X, [1, 3], 1), {}), ((X, [1, 1]), {})],
    "sqrt.default": [((V,), {})],
    "squeeze.dim": [((X[:1], 0), {}), ((X, 1), {})],
    "stack.default": [(([X, Y],), {}), (([X, Y], 1), {})],
    "sub.Tensor": [((X, Y), {}), ((X, 2), {}), ((X, Y), {"alpha": 2})],
    "sum.dim_IntList": [((X, [1]), {}), ((X, [2, 3], True), {}), ((X, [1]), {"dtype": torch.float64})],
    "sym_size.int": [((X, 2), {}), ((X, -3), {})],
    "tanh.default": [((X,), {})],
    "transpose.int": [((X, 1, 2), {}), ((X, -2, -1), {})],
    "unbind.int": [((X,), {}), ((X, 1), {})],
    "unsqueeze.default": [((X, 0), {}), ((X, -1), {})],
    **{f"upsample_{mode}2d.vec": [((X, [8, 9], False, None), {})] for mode in ("bilinear", "bicubic")},
    "upsample_nearest2d.vec": [((X, [8, 9], None), {}), ((X, None, [2.0, 2.0]), {})],
    "view.default": [((X, [2, -1]), {})],
    "zeros.default": [(([2, 3],), {"dtype": torch.float64, "device": CPU, "pin_memory": False})],
}


class _Dispatched(TorchDispatchMode):
    """What reaches the kernels: operators with their arguments, tensors as shapes and first numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(f"{func}({args!r}, {kwargs!r})")
        return func(*args, **(kwargs or {}))


def _dispatched(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    with _Dispatched() as seen:
        call(*args, **kwargs)
    return seen.calls


def _by_path(path: str) -> Callable[..., Any]:
    function: Any = torch
    for name in path.split(".")[1:]:
        function = getattr(function, name)
    call: Callable[..., Any] = function
    return call


@pytest.mark.parametrize("operator", SPELT)
def test_a_spelling_calls_the_very_operator(operator: str) -> None:
    name, overload = operator.split(".")
    by_name = getattr(getattr(aten, name), overload)
    for args, kwargs in CASES[operator]:
        assert _dispatched(_by_path(SPELT[operator]), args, kwargs) == _dispatched(by_name, args, kwargs)
        ours, theirs = _by_path(SPELT[operator])(*args, **kwargs), by_name(*args, **kwargs)
        assert type(ours) is type(theirs) or isinstance(ours, (tuple, list))
        torch.testing.assert_close(ours, type(ours)(theirs) if isinstance(ours, tuple) else theirs)


@pytest.mark.parametrize(
    ("bounds", "spelt_out"),
    [
        ((2, 0, 3), (2, 0, 3)),
        ((1, 1, _END), (1, 1, _END)),
        ((3, 2), (3, 2, _END)),
        ((2, None, 2), (2, 0, 2)),
        ((3, -3, _END, 2), (3, -3, _END, 2)),
        ((0, 0, _END), (0, 0, _END)),
    ],
)
def test_an_index_calls_the_very_slice(bounds: tuple[Any, ...], spelt_out: tuple[Any, ...]) -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(aten.slice.Tensor, (graph.placeholder("x"), *bounds)))
    module = FoldedGraph(nn.Module(), graph)
    assert ("slice.Tensor" in module.code) == (bounds == (0, 0, _END))
    assert _dispatched(module, (X,), {}) == _dispatched(aten.slice.Tensor, (X, *spelt_out), {})


def _block(channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))


class _Named(nn.Module):
    """Modules whose names are words that code knows already."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, nn.ModuleDict({"a": _block(), "b": _block()}))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            part: Any = self.get_submodule(name)
            x = part["b"](torch.relu(part["a"](x)))
        return x


@pytest.mark.parametrize(
    "names", [("torch", "relu", "x", "list"), ("m_relu", "0", "self_", "device", "lambda")]
)
def test_modules_may_be_called_as_code_is(names: tuple[str, ...]) -> None:
    network = randomised(_Named(*names))
    module = rk.fold(network, noise(1, 4, 5, 5, dtype=torch.float32)).module
    x = noise(3, 4, 7, 6, seed=1, dtype=torch.float32)
    torch.testing.assert_close(module(x), network(x))
    torch.testing.assert_close(copy.deepcopy(module)(x), network(x))


class _Around(nn.Module):
    """A module, and a weight, at the top of the network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.beside = name, _block(4)
        self.add_module(name, _block(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.get_submodule(self.name)(x)) + self.beside(torch.relu(x))


class _Scaled(nn.Module):
    def __init__(self, name: str, *, trained: bool) -> None:
        super().__init__()
        self.name, self.block = name, _block()
        if trained:
            self.register_parameter(name, nn.Parameter(V[:, None, None]))
        else:
            self.register_buffer(name, V[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(torch.relu(x + getattr(self, self.name)))


GRAPHS_OWN = ("graph", "code", "meta", "recompile", "shape_env", "_out_spec")
CHECKS = ("size_guards", "constant_arguments")


@pytest.mark.parametrize("name", [*GRAPHS_OWN, *CHECKS])
@pytest.mark.parametrize("kind", ["module", "parameter", "buffer"])
def test_the_networks_parts_may_be_called_as_a_graph_modules_are(
    name: str, kind: str, tmp_path: Path
) -> None:
    network = randomised(_Around(name) if kind == "module" else _Scaled(name, trained=kind == "parameter"))
    folded = rk.fold(network, noise(1, 4, 5, 5, dtype=torch.float32))
    assert len(folded.folds) == (2 if kind == "module" else 1)
    x = noise(3, 4, 7, 6, seed=1, dtype=torch.float32)
    for module in (folded.module, copy.deepcopy(folded.module), pickle.loads(pickle.dumps(folded.module))):
        torch.testing.assert_close(module(x), network(x))
        with pytest.raises(ValueError, match="sizes"):
            module(x[:, :, :0])
    persistent = sum(name in key for key in folded.module.state_dict())
    assert persistent == {"module": 2, "parameter": 1, "buffer": 0}[kind]
    if name in ("graph", "size_guards"):
        folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")


def test_such_a_network_goes_into_a_class_and_not_through_torchs_own_modules() -> None:
    network, x = randomised(_Scaled("graph", trained=True)), noise(1, 4, 5, 5, dtype=torch.float32)
    folded = rk.fold(network, x)
    loaded = rk.load_into(folded, _Scaled("graph", trained=True))
    torch.testing.assert_close(loaded.module(x), network(x))
    assert loaded.layers["graph_"] == "graph"
    program = torch.export.export(network, (x,), strict=False)
    with pytest.raises(rk.UnusableInput, match="call it otherwise, or fold the module"):
        rk.fold_program(program)


def test_the_graph_keeps_its_operators_and_the_code_is_in_torchs_words() -> None:
    network = randomised(
        Net(lambda s, x: torch.relu(s.block(x)).mean((2, 3)).reshape(x.shape[0], 2, 2), block=_block())
    )
    module = rk.fold(network, noise(1, 4, 5, 5, dtype=torch.float32)).module
    targets = [node.target for node in nodes_of(module)]
    assert aten.relu.default in targets
    assert aten.mean.dim in targets
    assert "torch.ops.aten" not in str(module.code)
    assert "torch.relu(" in str(module.code)
    assert ".size(0)" in str(module.code)


def test_a_module_that_is_replaced_later_is_the_one_that_runs() -> None:
    network = randomised(nn.Sequential(nn.Sequential(_block(), nn.ReLU(), _block()), nn.ReLU()))
    x = noise(1, 4, 5, 5, dtype=torch.float32)
    module = rk.fold(network, x).module
    layer = next(name for name, part in module.named_modules() if isinstance(part, nn.Conv2d))
    *path, last = layer.split(".")
    owner = module.get_submodule(".".join(path))
    before, calls = module(x), []
    getattr(owner, last).register_forward_hook(lambda *_: calls.append(layer))
    module(x)
    assert calls == [layer]
    other = nn.Conv2d(4, 4, 1)
    setattr(owner, last, other)
    assert not torch.equal(module(x), before)
