"""What stands in the network is what was proven, each number rounded once.

    |w - w64| <= ε/2 · |w64|          ε of the network's number type; below its normal numbers, half a step

The proof runs on the float64 numbers of a layer. This holds the rounded ones against them, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reparamkit.engine.proof import CheckFailed

_AT_ONCE = 1 << 18


def numbers_of(modules: Sequence[nn.Module | None]) -> list[Tensor]:
    """The parameters of some layers as they are now; rounding does not change these tensors."""
    held = (p for m in modules if m is not None for p in m._parameters.values())
    return [p.detach() for p in held if p is not None]


def require_rounded(exact: Sequence[Tensor], modules: Sequence[nn.Module | None], dtype: torch.dtype) -> None:
    """Raise `CheckFailed` unless the layers hold the `exact` numbers, each rounded once to `dtype`."""
    now = numbers_of(modules)
    if len(now) != len(exact):
        raise CheckFailed(f"{len(now)} tensors of weights instead of the {len(exact)} that were proven")
    step = torch.finfo(dtype)
    for rounded, proven in zip(now, exact, strict=True):
        if rounded.dtype != dtype or rounded.shape != proven.shape:
            raise CheckFailed(
                f"weights {list(rounded.shape)} of {rounded.dtype} instead of {list(proven.shape)} of {dtype}"
            )
        if torch.equal(rounded, proven.to(rounded)):
            continue
        flat, proven = rounded.flatten(), proven.flatten()
        for first in range(0, len(flat), _AT_ONCE):  # a large layer at once would take as much memory again
            some, wanted = flat[first : first + _AT_ONCE], proven[first : first + _AT_ONCE]
            off = (some.cpu().double() - wanted.cpu()).abs_()
            allowed = wanted.cpu().abs().mul_(step.eps / 2).clamp_(min=step.smallest_normal * step.eps / 2)
            if not bool((off <= allowed).all()):
                raise CheckFailed(
                    f"a weight differs from the proven one by {float(off.max()):.1e}, more than rounding does"
                )
