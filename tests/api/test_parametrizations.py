"""Weights that torch computes at every call (weight, spectral and orthogonal norms) become plain weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import reparamkit as rk

Wrap = Callable[[nn.Module], nn.Module]


class Symmetric(nn.Module):
    """Somebody's own: a matrix that is its transpose."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def orthogonal(kind: str) -> Wrap:
    return lambda layer: parametrizations.orthogonal(layer, orthogonal_map=kind)


def doubly(layer: nn.Module) -> nn.Module:
    return parametrizations.spectral_norm(parametrizations.weight_norm(layer))


WRAPS: dict[str, Wrap] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of the whole": lambda layer: parametrizations.weight_norm(layer, dim=-1),
    "spectral_norm": parametrizations.spectral_norm,
    "matrix_exp": orthogonal("matrix_exp"),
    "cayley": orthogonal("cayley"),
    "householder": orthogonal("householder"),
    "one's own": lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
    "two of them": doubly,
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(6, 6, 5, padding=2), (2, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(6, 6, 3, stride=2), (2, 6, 9, 8)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(6, 6, 4, stride=2), (2, 6, 5, 4)),
    "linear": (lambda: nn.Linear(6, 6), (2, 5, 6)),
}


def network(layer: str, wrap: Wrap) -> nn.Module:
    """Two such layers with weights of that form, and a norm between them where there are channels."""
    torch.manual_seed(0)
    build, shape = LAYERS[layer]
    norms: dict[int, type[nn.Module]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    norm = nn.Identity() if layer == "linear" else norms[len(shape)](6)
    net = nn.Sequential(wrap(build()), norm, nn.ReLU(), wrap(build()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        net.train()(torch.randn(shape))  # spectral norms keep their vectors, batch norms their statistics
    return net.eval()


@pytest.mark.diagonal(8)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", WRAPS)
def test_nothing_but_layers_is_left(layer: str, name: str) -> None:
    net, x = network(layer, WRAPS[name]), torch.randn(LAYERS[layer][1])
    folded = rk.fold(net, x)
    assert folded.after == {layer: 2, "relu": 1}
    assert set(folded.before) - {layer, "relu", "batch_norm"}, "the weights were computed before"
    assert folded.refusals == ()
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    kinds = {
        type(module).__name__.lower() for module in folded.module.modules() if list(module.parameters(False))
    }
    assert kinds == {type(LAYERS[layer][0]()).__name__.lower()}
    with torch.no_grad():
        assert torch.allclose(folded.module(x), net(x), atol=1e-5)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "cayley"])
def test_they_go_back_into_plain_layers(name: str) -> None:
    net, x = network("conv2d", WRAPS[name]), torch.randn(LAYERS["conv2d"][1])
    build = LAYERS["conv2d"][0]
    plain = nn.Sequential(build(), nn.ReLU(), build()).eval()
    loaded = rk.load_into(rk.fold(net, x), plain)
    plain.load_state_dict(loaded.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.allclose(plain(x), net(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight", "spectral"])
def test_the_older_hooks_too(wrap: Wrap) -> None:
    net, x = network("conv2d", wrap), torch.randn(LAYERS["conv2d"][1])
    assert rk.fold(net, x).after == {"conv2d": 2, "relu": 1}


class Implicit(nn.Module):
    """YOLOR's implicit knowledge: what is added to, and multiplied with, what a layer reads and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.scale = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.layer = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x + self.shift)


def test_implicit_layers() -> None:
    folded = rk.fold(Implicit().eval(), torch.randn(2, 6, 5, 4))
    assert folded.after == {"conv2d": 1}
