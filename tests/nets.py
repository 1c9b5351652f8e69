"""Small networks around a function, weights that leave a fold nothing to hide behind, and the one comparison.

The oracle is always a copy of the original that was made before anything was folded, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program

if TYPE_CHECKING:
    from reparamkit.engine.findings import Fold, Refusal

BAR = 1e-9
ModelT = TypeVar("ModelT", bound=nn.Module)


class Net(nn.Module):
    """A network that is one function of itself and its input, with named modules, parameters and buffers."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class PairNet(Net):
    """The same with two inputs."""

    def forward(self, x: Tensor, y: Any) -> Any:  # type: ignore[override]
        return self.function(self, x, y)


def nodes_of(module: nn.Module) -> list[fx.Node]:
    """What a folded network computes, step by step."""
    assert isinstance(module, fx.GraphModule)
    return list(module.graph.nodes)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randomised(model: ModelT, seed: int = 0) -> ModelT:
    """Weights and norm statistics that are nowhere 0 or 1; a third of the norms' weights are negative."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float64) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            for name, parameter in module.named_parameters(recurse=False):
                if norm and name == "weight":
                    sign = 1 - 2 * (uniform(parameter, 0, 1) < 1 / 3).double()
                    parameter.copy_(uniform(parameter, 0.5, 1.5) * sign)
                else:
                    fan_in = max(1, parameter[0].numel() if parameter.ndim > 1 else 1)
                    values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(values / fan_in**0.5)
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.copy_(uniform(module.running_mean, -0.7, 0.7))
                module.running_var.copy_(uniform(module.running_var, 0.4, 2.5))
    return model.eval()


@dataclass
class Folded:
    """A fold next to the untouched original."""

    original: nn.Module
    program: Program
    module: nn.Module
    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]

    def reasons(self) -> str:
        return "\n".join(r.reason for r in self.refusals)

    def compare(self, *args: Any, bar: float = BAR, **kwargs: Any) -> None:
        """Both modules on copies of the same inputs: the outputs, and what was written into the inputs."""
        there, here = copy.deepcopy((args, kwargs)), copy.deepcopy((args, kwargs))
        with torch.no_grad():
            expected = self.original(*there[0], **there[1])
            found = self.module(*here[0], **here[1])
        assert_same(expected, found, bar)
        assert_same(there, here, bar)

    def count(self, *args: Any) -> tuple[int, int, int]:
        return count(self.module, *args)


def assert_same(expected: Any, found: Any, bar: float = BAR) -> None:
    """Same structure, shapes, number types; values within `bar` of the largest (0 for integers)."""
    wanted, spec = pytree.tree_flatten(expected)
    got, found_spec = pytree.tree_flatten(found)
    assert found_spec == spec
    for a, b in zip(wanted, got, strict=True):
        if not isinstance(a, Tensor):
            assert a == b
            continue
        assert b.shape == a.shape
        assert b.dtype == a.dtype
        assert torch.equal(torch.isnan(a), torch.isnan(b))
        assert not a.is_floating_point() or torch.isfinite(a).all(), "the oracle itself must be finite"
        if a.numel():
            error, scale = (a - b).abs().max().item() if a.dtype != torch.bool else (a ^ b).any().item(), 1.0
            if a.is_floating_point():
                scale = max(a.abs().max().item(), 1e-300)
            assert error <= bar * scale, f"relative error {error / scale:.1e}"


def fold(
    model: nn.Module,
    *args: Any,
    dynamic: Any = False,
    dtype: torch.dtype | None = torch.float64,
    **kwargs: Any,
) -> Folded:
    """Fold the model in float64, at fixed sizes unless told otherwise."""
    from reparamkit.hosts.fx.fold import fold_program  # what mutates the engine imports this file before

    model = model.eval()
    if dtype is not None:
        model = model.to(dtype)
    original = copy.deepcopy(model)
    program = capture(model, args, kwargs, dynamic=dynamic)
    outcome = fold_program(program)
    return Folded(original, program, outcome.module, outcome.folds, outcome.refusals)


def fold_and_compare(model: nn.Module, *args: Any, **options: Any) -> Folded:
    """Fold and compare at the example."""
    done = fold(model, *args, **options)
    done.compare(*args)
    return done


def count(module: nn.Module, *args: Any) -> tuple[int, int, int]:
    """Convolutions (and linear layers excluded), batch norms and additions of an exported graph."""
    graph = torch.export.export(module, args, strict=False).graph
    names = [str(n.target) for n in graph.nodes if n.op == "call_function"]
    convs = sum(
        n.startswith(("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")) for n in names
    )
    norms = sum("batch_norm" in n for n in names)
    adds = sum(n.startswith("aten.add") for n in names)
    return convs, norms, adds
