"""Random weights that leave a fold nothing to hide behind.

A freshly built network is a poor witness: its batch norms are the identity and its biases, layer
scales and running means are 0 or 1, so a fold that forgets one of them still looks right. `randomize`
gives every parameter and every running statistic a value that matters, and keeps the activations in
range, so that an error in the first layer is still to be seen in the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def randomize(model: ModuleT, seed: int = 0, *, sample: Tensor | None = None) -> ModuleT:
    """Fill all weights and statistics of `model` in place from `seed`, and return it.

    - convolution and linear weights: normal, of variance 1/fan-in; biases: normal, deviation 0.1
    - weights of normalisation layers: 0.3 to 0.9, a quarter of them negative; biases: normal, deviation 0.2
    - running means: normal, deviation 0.2; running variances: 0.5 to 1.5
    - any other floating parameter (layer scales, tokens, tables): 0.2 to 0.8 and signed when it is a
      vector, else normal of variance 1/fan-in

    Same seed, same values, whatever the device and dtype; the global random state is neither read nor
    changed. `model` keeps its mode.

    Nothing here can know how many branches a sum has. So that a deep network neither dies out nor
    explodes, pass `sample`, one input batch: the running statistics are then set to those of the sample
    (two or more images), each mean moved by about a fifth of a deviation and each variance by a factor
    of 0.7 to 1.4, as one evaluation-mode forward pass goes by. Without it they are drawn blindly, which
    suits single layers and shallow networks.
    """
    generator = Generator().manual_seed(seed)
    seen: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen and parameter.is_floating_point():
                    seen.add(id(parameter))
                    parameter.copy_(_draw(module, name, parameter, generator))
            if isinstance(module, _NormBase):
                _fill_statistics(module, generator)
        if sample is not None and any(isinstance(module, _NormBase) for module in model.modules()):
            with _evaluating(model), _calibrating(model, generator):
                model(sample)
    return model


def _draw(module: nn.Module, name: str, parameter: Tensor, generator: Generator) -> Tensor:
    shape = parameter.shape
    if isinstance(module, _ConvNd | nn.Linear):
        if name == "bias":
            return _normal(shape, 0.1, generator)
        fan_in = parameter[0].numel()
        if isinstance(module, _ConvTransposeNd):
            taps = math.prod(module.kernel_size) / math.prod(module.stride)
            fan_in = max(1, round(module.in_channels / module.groups * taps))
        return _normal(shape, fan_in**-0.5, generator)
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        if name == "bias":
            return _normal(shape, 0.2, generator)
        return _signed(shape, 0.3, 0.9, generator)
    sides = [side for side in shape if side > 1]
    if len(sides) < 2:
        return _signed(shape, 0.2, 0.8, generator)
    return _normal(shape, math.prod(sides[1:]) ** -0.5, generator)


def _fill_statistics(norm: _NormBase, generator: Generator) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    norm.running_mean.copy_(_normal(norm.running_mean.shape, 0.2, generator))
    norm.running_var.copy_(_uniform(norm.running_var.shape, 0.5, 1.5, generator))
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _calibrating(model: nn.Module, generator: Generator) -> Iterator[None]:
    """While this is open, a norm that is called first takes (roughly) the statistics of what it is given."""

    def calibrate(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not isinstance(module, _NormBase) or module.running_mean is None or module.running_var is None:
            return
        values = args[0].detach().to("cpu", torch.float64)
        values = values.transpose(0, 1).flatten(1) if values.ndim > 1 else values[:, None]
        mean, variance = values.mean(1), values.var(1, correction=0)
        # A channel that happens to be still in the sample would otherwise be amplified without bound.
        power = (variance + mean.square()).mean().item() or 1.0
        variance = variance.clamp(min=0.25 * power)
        shift = 0.2 * variance.sqrt() * _normal(mean.shape, 1.0, generator)
        module.running_mean.copy_(mean + shift)
        module.running_var.copy_(variance * _uniform(variance.shape, 0.7, 1.4, generator))

    hooks = [module.register_forward_pre_hook(calibrate) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _normal(shape: torch.Size, deviation: float, generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device="cpu") * deviation


def _uniform(shape: torch.Size, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device="cpu") * (high - low) + low


def _signed(shape: torch.Size, low: float, high: float, generator: Generator) -> Tensor:
    """Magnitudes from `low` to `high`, a quarter of them negative."""
    sign = torch.where(torch.rand(shape, generator=generator, device="cpu") < 0.25, -1.0, 1.0)
    return sign * _uniform(shape, low, high, generator)
