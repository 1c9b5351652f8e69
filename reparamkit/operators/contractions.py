"""Sums over axes of a value with factors: matrices that differ from group to group, and none.

    y[…, n, o]  =  Σ_i x[…, n, i] · W[n, i, o]          y[…, i]  =  Σ_n x[…, n, i]

Where the axes that are summed over, or that the constant varies along, hold the channels of a value that was
reshaped, this is a matrix over those (`reparamkit.engine.laws.contractions_of_channels`).
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from reparamkit.operators.base import Call, Constant, Contraction, Meaning, NotAffine, Value, reader

_NO_MATRIX = "its equation is not that of one matrix over one axis"
_SEVERAL = "its matrices differ from sample to sample"


def by_constant(
    value: Value,
    constant: Constant,
    mine: Sequence[str],
    other: Sequence[str],
    result: Sequence[str],
    reason: str = _NO_MATRIX,
) -> Contraction:
    """What torch.einsum makes of a value and a constant, the axes of each with a name.

    Raises `NotAffine` where a name stands for two axes of one tensor, or the constant is broadcast.
    """
    sizes = dict(zip(other, constant.shape, strict=True)) | dict(zip(mine, value.shape, strict=True))
    distinct = all(len(set(names)) == len(names) for names in (mine, other, result))
    known = set(result) <= sizes.keys()
    if not distinct or not known or any(sizes[x] != n for x, n in zip(other, constant.shape, strict=True)):
        raise NotAffine(reason)
    names = dict(zip(dict.fromkeys(chain(mine, other)), string.ascii_letters, strict=False))
    if len(names) < len({*mine, *other}):
        raise NotAffine("its equation has too many axes", notable=False)
    first, second, third = ("".join(names[x] for x in each) for each in (mine, other, result))

    def apply(x: Tensor) -> Tensor:
        contracted: Tensor = torch.einsum(f"...{first},{second}->...{third}", x, constant.load())
        return contracted

    acted = tuple(a for a, x in enumerate(mine) if x in other or x not in result)
    places = tuple(mine.index(x) if x in mine and x not in other else None for x in result)
    summed = math.prod(n for x, n in sizes.items() if x not in result)
    shape, weights = tuple(sizes[x] for x in result), math.prod(constant.shape)
    return Contraction(value, acted, places, shape, apply, summed, weights, reason)


def product(value: Value, constant: Constant, *, constant_first: bool) -> Contraction:
    """A product of matrices, the last two axes of each, where the constant's differ along the others."""
    ndim = max(value.ndim, len(constant.shape))
    shape = (1,) * (ndim - len(constant.shape)) + tuple(constant.shape)
    if value.ndim < ndim or ndim < 3:
        raise NotAffine("its constant broadcasts the value")
    kept = [a for a in range(ndim) if a >= ndim - 2 or shape[a] != 1]
    laid_out = Constant(
        tuple(shape[a] for a in kept), lambda: constant.load().reshape([shape[a] for a in kept])
    )
    groups = [str(a) for a in range(ndim - 2)]
    mine, theirs = ([*groups, "i", "p"], ["o", "i"]) if constant_first else ([*groups, "p", "i"], ["i", "o"])
    result = [*groups, "o", "p"] if constant_first else [*groups, "p", "o"]
    return by_constant(value, laid_out, mine, [*(groups[a] for a in kept[:-2]), *theirs], result, _SEVERAL)


@reader("aten.sum.dim_IntList")
def summed(call: Call) -> Meaning:
    """The sum over some axes."""
    value, dims = call.value("self"), call.get("dim")
    if not dims or value.ndim == 0:
        raise NotAffine("it sums over all axes", notable=False)
    axes = sorted({value.axis(dim) for dim in dims})
    keep = bool(call.get("keepdim", False))
    places = tuple(None if a in axes else a for a in range(value.ndim) if keep or a not in axes)
    behind = [a - value.ndim for a in axes]
    apply: Callable[[Tensor], Tensor] = lambda x: x.sum(behind, keepdim=keep)  # noqa: E731
    count = math.prod(value.shape[a] for a in axes)
    return Contraction(value, tuple(axes), places, call.result.shape, apply, count, 0)
