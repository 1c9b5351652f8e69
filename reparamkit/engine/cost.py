"""What a layer costs: the model that decides which exact folds are worth making.

    cost = MACs + κ · (elements read + elements written)        κ = 16

A multiply-accumulate is the unit; moving one element of an activation or a weight counts as κ of them, about
the arithmetic that a mobile core does while it moves four bytes. For a convolution

    MACs = |output| · (inputs / groups) · Π window        elements = |input| + |output| + |kernel| + |bias|

with the sizes seen at capture; for a transposed convolution, |input| · (outputs / groups) · Π window MACs. A
sum of two tensors is |output| MACs and 3·|output| elements; a per-channel scale and shift (a batch norm) is a
one-tap depthwise convolution. A table in which integers look up moves rows and, like any layer, its weights.
Uneven zero padding needs a pass of its own over the input. Constants that the network recomputes from its
parameters on every run count as moved once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

from reparamkit.algebra import Geometry, Map, Scalar, Transposed
from reparamkit.algebra.transposed import realisable
from reparamkit.operators import Value

KAPPA = 16.0


def layer(structure: Map, source: Value, result: Value) -> float:
    """One layer that applies `structure` to `source`."""
    if not source.dtype.is_floating_point and isinstance(structure, Geometry):
        return KAPPA * (math.prod(source.shape) + 2 * math.prod(result.shape) + structure.weights)
    return _layer(structure, source.shape, result.shape)


@lru_cache(maxsize=4096)
def _layer(structure: Map, source: tuple[int, ...], result: tuple[int, ...]) -> float:
    read, written = math.prod(source), math.prod(result)
    if isinstance(structure, Scalar):
        return 0.0 if structure.identity else written + KAPPA * (read + written)
    if isinstance(structure, Transposed):
        return _scattering(realisable(structure), read, written)
    uneven = structure.near != structure.far or any(p < 0 for p in structure.near)
    padded = _padded(structure, source) if uneven else read
    if structure.unit and all(s == 1 for s in structure.stride):
        return 2.0 * KAPPA * written
    taps = structure.inputs // structure.groups * math.prod(structure.window)
    moved = padded + written + structure.weights + (structure.outputs if structure.has_bias else 0)
    if uneven:
        moved += 2 * padded
    return written * taps + KAPPA * moved


def _scattering(t: Transposed, read: int, written: int) -> float:
    moved = read + written + t.weights + (t.outputs if t.has_bias else 0)
    return read * (t.outputs // t.groups) * math.prod(t.window) + KAPPA * moved


def _padded(structure: Geometry, source: tuple[int, ...]) -> int:
    whole = len(source) - structure.dims
    spatial = source[whole:]
    sides = (n + p + q for n, p, q in zip(spatial, structure.near, structure.far, strict=True))
    return math.prod(source[:whole]) * math.prod(sides)


def addition(result: Value) -> float:
    """A sum of two tensors of the result's shape; a factor on either rides along."""
    return (1.0 + 3.0 * KAPPA) * math.prod(result.shape)


def copy(result: Value) -> float:
    """A copy, or an operator that comes to no more than that."""
    return 2.0 * KAPPA * math.prod(result.shape)


def in_passing(result: Value) -> float:
    """A scale and shift that an operator applies to its result before it is written."""
    return 2.0 * math.prod(result.shape)


def concatenation(result: Value) -> float:
    """A copy of everything concatenated."""
    return 2.0 * KAPPA * math.prod(result.shape)


def contraction(source: Value, result: Value, summed: int, weights: int) -> float:
    """Sums of so many products for every element of the result."""
    written = math.prod(result.shape)
    return written * summed + KAPPA * (math.prod(source.shape) + written + weights)


def recomputation(elements: int) -> float:
    """Constants recomputed on every run."""
    return KAPPA * elements


def total(terms: Iterable[tuple[Map, Value]], result: Value) -> float:
    """The sum of several layers on several sources."""
    terms = list(terms)
    if len(terms) == 1:
        return layer(*terms[0], result)
    layers = [t for t in terms if not isinstance(t[0], Scalar) or t[0].has_bias]
    return sum(layer(*t, result) for t in layers) + (len(terms) - 1) * addition(result)
