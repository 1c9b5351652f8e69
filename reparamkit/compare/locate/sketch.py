"""Sketches: 256 numbers that stand for a tensor, so that any two tensors of a run can be compared later.

With random signs s and the buckets i mod 256,

    k(x)[b] = sum over i ≡ b of  s[i] · x[i]         E |k(x) − k(y)|² = |x − y|²

with a relative standard deviation of at most sqrt(2/256) = 9 % (the count-sketch of Charikar, Chen and
Farach-Colton, "Finding frequent items in data streams", 2002). It is linear, so the sketch of a difference is
the difference of the sketches, and a change of one element is always seen. Tensors are taken in their flat
order: a reshape does not change a sketch, a permutation does.
"""

from __future__ import annotations

import math

import torch

BUCKETS = 256
_SEED = 20020714

Sketch = torch.Tensor
"""(256,) float64."""


class Sketcher:
    """Makes sketches; all that are to be compared come from one sketcher, or from one seed."""

    def __init__(self) -> None:
        self._signs = torch.empty(0)

    def __call__(self, tensor: torch.Tensor) -> Sketch | None:
        """The sketch of a floating-point tensor; None for any other, an empty or a not finite one."""
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return None
        flat = tensor.detach().cpu().reshape(-1)
        flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
        sums = torch.zeros(BUCKETS, dtype=torch.float64)
        signs = self._of_length(flat.numel())
        rest = flat.numel() % BUCKETS
        whole = flat.numel() - rest
        # Row by block: a float64 copy of the whole tensor would be as large again.
        for start in range(0, whole, _BLOCK):
            end = min(start + _BLOCK, whole)
            signed = flat[start:end].double() * signs[start:end]
            sums += signed.reshape(-1, BUCKETS).sum(0)
        sums[:rest] += flat[whole:].double() * signs[whole : whole + rest]
        return sums if bool(sums.isfinite().all()) else None

    def _of_length(self, length: int) -> torch.Tensor:
        if self._signs.numel() < length:
            generator = torch.Generator().manual_seed(_SEED)
            drawn = torch.randint(0, 2, (length,), generator=generator, dtype=torch.int8)
            self._signs = drawn * 2 - 1
        return self._signs[:length]


_BLOCK = BUCKETS * 1024


def size(sketch: Sketch) -> float:
    """The Euclidean norm of what was sketched."""
    return float(sketch.norm())


def distance(left: Sketch | None, right: Sketch | None) -> float:
    """|x − y| / |y| in the Euclidean norm; infinite where there is none."""
    if left is None or right is None:
        return math.inf
    scale = size(right)
    return float((left - right).norm()) / scale if scale > 0 else math.inf
