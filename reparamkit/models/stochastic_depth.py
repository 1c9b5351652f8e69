"""Stochastic depth (Huang et al., ECCV 2016, arXiv:1603.09382)."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, each sample of (N, …) becomes 0 with probability `rate`, else is divided by 1 − `rate`.

    In evaluation it is the identity. `rate` lies in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)


def rates(peak: float, blocks: int) -> list[float]:
    """One rate per block, growing linearly from 0 to `peak`."""
    return [peak * index / max(1, blocks - 1) for index in range(blocks)]
