"""How much rounding noise a network makes, where its exact values cannot be had.

Rounding acts like a small random relative error on every operand. So an error of that kind, put on purpose on
every weight and every input, moves the outputs about as far as the network's own rounding does. This is
Monte Carlo arithmetic (Parker, Pierce and Eggert, "Monte Carlo arithmetic: how to gamble with floating
point and win", 2000), applied to operands only.
"""

from __future__ import annotations

import torch
from torch import nn

from reparamkit.support.inputs import Args, Kwargs, map_tensors

_JITTER_ULPS = 4.0


def jitter(tensor: torch.Tensor, generator: torch.Generator, size: float | None = None) -> torch.Tensor:
    """Each element times 1 + u, u uniform within `size`; integers as they are.

    By default that is 4 units in the last place of the tensor's own type.
    """
    if not tensor.is_floating_point():
        return tensor
    size = _JITTER_ULPS * torch.finfo(tensor.dtype).eps if size is None else size
    noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
    exact = tensor.detach().to("cpu", torch.float64) * (1 + size * noise)
    return exact.to(device=tensor.device, dtype=tensor.dtype)


def jitter_parameters(module: nn.Module, seed: int, size: float | None = None) -> None:
    """Jitter every floating-point parameter and buffer in place; `size` as in `jitter`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.copy_(jitter(tensor, generator, size))


def jittered_inputs(args: Args, kwargs: Kwargs, seed: int) -> tuple[Args, Kwargs]:
    """The same inputs, jittered."""
    generator = torch.Generator().manual_seed(seed)
    return map_tensors(lambda _, tensor: jitter(tensor, generator), args, kwargs)
