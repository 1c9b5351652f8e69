"""Batch norm over the batches of all processes.

On GPUs this is torch's own `SyncBatchNorm`, which runs nowhere else; on a processor it is the same sums,
added up with a differentiable all-reduce:

    μ = Σ x / n,   σ² = Σ (x − μ)² / n,   y = γ (x − μ)/√(σ² + ε) + β,   sums over all processes
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its batch norms replaced by synchronised ones, of the same parameters and names."""
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for path, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm) and not isinstance(module, ProcessorSyncNorm):
            norm = ProcessorSyncNorm.like(module)
            if not path:
                return norm
            model.set_submodule(path, norm)
    return model


class _Summed(torch.autograd.Function):
    """Σ over all processes: what each of them gets depends on what each of them gives."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _over_processes(value: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(value)  # type: ignore[no-untyped-call]
    return summed


class ProcessorSyncNorm(_BatchNorm):
    """A batch norm that takes its statistics over all processes: (N, C, …) -> same."""

    @classmethod
    def like(cls, norm: _BatchNorm) -> ProcessorSyncNorm:
        """One that shares the parameters and statistics of `norm`."""
        other = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        other._parameters = norm._parameters
        other._buffers = norm._buffers
        other.train(norm.training)
        return other

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"a batch norm takes two axes or more, not {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = (1, -1, *(1,) * (input.ndim - 2))
        count = torch.tensor(input.numel() / input.shape[1], dtype=input.dtype)
        dist.all_reduce(count)
        mean = _over_processes(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = _over_processes(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is None:
            return normal
        return normal * self.weight.view(shape) + self.bias.view(shape)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)
