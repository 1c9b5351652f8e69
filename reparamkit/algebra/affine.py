"""Affine maps with their numbers, in float64.

Kernels are (outputs, inputs // groups, *window) as in a convolution, biases (outputs,). With A before B:

    (B ∘ A):  K[o, e, s_A·δ_B·t + δ_A·u] += K_B[o, c, t] · K_A[c, e, u]
              b = b_B + Σ_c,t K_B[o, c, t] · b_A[c]
    (A + B):  kernels are laid onto the union of the two windows and added; biases are added

Where one of them is a transposed convolution, the taps of B ∘ A lie at s_B·δ_A·u + δ_B·t instead, and a
convolution (of stride 1) joins in with its kernel turned around.

Whether that is exact is decided in `geometry`; this file only computes. Sources: Ding et al.,
RepVGG (arXiv:2101.03697) and Diverse Branch Block (arXiv:2103.13425) for the transforms I to VI,
which are all cases of these two lines.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reparamkit.algebra import geometry as geo
from reparamkit.algebra import transposed
from reparamkit.algebra.geometry import Geometry, Scalar
from reparamkit.algebra.transposed import Transposed
from reparamkit.algebra.windows import Ints, Windowed, offsets


@dataclass(frozen=True, slots=True)
class ScalarMap:
    """y = α·x + β; the same numbers at every element of a tensor of any layout."""

    alpha: float = 1.0
    beta: float = 0.0

    @property
    def structure(self) -> Scalar:
        """What planning needs to know of it."""
        return Scalar(has_bias=self.beta != 0.0, identity=self.alpha == 1.0 and self.beta == 0.0)


@dataclass(frozen=True, slots=True)
class AffineMap:
    """A structure with its float64 kernel (outputs, inputs // groups, *window) and bias (outputs,)."""

    structure: Geometry | Transposed
    kernel: Tensor
    bias: Tensor | None


Numbers = AffineMap | ScalarMap

IDENTITY = ScalarMap()


def channelwise(scale: Tensor, shift: Tensor | None, dims: int) -> AffineMap:
    """y[c] = scale[c]·x[c] + shift[c]; both (channels,)."""
    channels = scale.numel()
    structure = geo.channelwise(channels, dims, has_bias=shift is not None)
    return AffineMap(structure, scale.reshape(channels, 1, *structure.window), shift)


def compose(after: Numbers, before: Numbers) -> Numbers:
    """after ∘ before. Raises `Inexact` where `geometry.compose` does."""
    if isinstance(after, ScalarMap):
        return _scaled(before, after)
    if isinstance(before, ScalarMap):
        if before == IDENTITY:
            return after
        geo.compose(after.structure, before.structure)
        kernel = after.kernel * before.alpha
        if before.beta == 0.0:
            return _with_bias(after.structure, kernel, after.bias)
        return _with_bias(after.structure, kernel, _plus(after.bias, _summed(after) * before.beta))

    structure = geo.compose(after.structure, before.structure)
    assert not isinstance(structure, Scalar)
    bias = after.bias
    if before.bias is not None:
        bias = _plus(bias, _carried(after, before.bias))
    if isinstance(structure, Transposed):
        after, before = scattered(after), scattered(before)
    if structure.unit:
        return AffineMap(
            structure, torch.ones(structure.outputs, 1, *structure.window, dtype=torch.float64), None
        )
    if after.structure.channelwise and all(w == 1 for w in after.structure.window):
        scale = after.kernel.reshape(-1, 1, *(1,) * before.structure.dims)
        kernel = before.kernel * scale
    elif before.structure.channelwise and all(w == 1 for w in before.structure.window):
        kernel = after.kernel * _per_input(before.kernel.flatten(), after.structure)
    else:
        kernel = _convolved(after, before, structure)
    return _with_bias(structure, kernel, bias)


def add(a: Numbers, b: Numbers) -> Numbers:
    """a + b, two maps of the same source. Raises `Inexact` where `geometry.add` does."""
    if isinstance(a, ScalarMap) and isinstance(b, ScalarMap):
        return ScalarMap(a.alpha + b.alpha, a.beta + b.beta)
    if isinstance(a, ScalarMap):
        assert isinstance(b, AffineMap)
        return add(_promoted(a, b), b)
    if isinstance(b, ScalarMap):
        return add(a, _promoted(b, a))
    structure = geo.add(a.structure, b.structure)
    assert not isinstance(structure, Scalar)
    if isinstance(structure, Transposed):
        a, b = scattered(a), scattered(b)
    if _fills(b, structure):
        a, b = b, a
    if _fills(a, structure) and _fills(b, structure):
        kernel = a.kernel + b.kernel
    else:
        kernel = a.kernel.clone() if _fills(a, structure) else placed(a, structure)
        kernel[_places(b, structure)] += _regrouped(b.kernel, b.structure.groups, structure.groups)
    bias = a.bias if b.bias is None else _plus(a.bias, b.bias)
    return _with_bias(structure, kernel, bias)


def stack(parts: list[AffineMap]) -> AffineMap:
    """Channel concatenation of maps of the same source. Raises `Inexact` where `geometry.stack` does."""
    structure = geo.stack([p.structure for p in parts])
    if isinstance(structure, Transposed):
        parts = [scattered(p) for p in parts]
    kernel = torch.cat([placed(p, replace(structure, outputs=p.structure.outputs)) for p in parts])
    bias = None
    if structure.has_bias:
        bias = torch.cat([kernel.new_zeros(p.structure.outputs) if p.bias is None else p.bias for p in parts])
    return _with_bias(structure, kernel, bias)


def scattered(m: AffineMap) -> AffineMap:
    """A map of stride 1 written as one that scatters. Raises `Inexact` for another stride."""
    if isinstance(m.structure, Transposed):
        return m
    return AffineMap(geo.scattered(m.structure), _turned(m.kernel), m.bias)


def gathered(m: AffineMap) -> AffineMap:
    """A scattering map of stride 1 written as a convolution."""
    assert isinstance(m.structure, Transposed)
    return AffineMap(geo.gathered(m.structure), _turned(m.kernel), m.bias)


def with_bias(m: AffineMap, bias: Tensor) -> AffineMap:
    """The linear part with another shift (outputs,)."""
    return _with_bias(m.structure, m.kernel, bias)


def reaching(pad: Geometry, m: Numbers) -> AffineMap:
    """The linear part of `m` with its result padded by zeros. Raises `Inexact` where that is no such map."""
    ones = torch.ones(pad.outputs, 1, *pad.window, dtype=torch.float64)
    composed = compose(AffineMap(pad, ones, None), linear_part(m))
    assert isinstance(composed, AffineMap)
    return composed


def without_bias(m: AffineMap) -> AffineMap:
    """The linear part alone."""
    return _with_bias(m.structure, m.kernel, None)


def linear_part(m: Numbers) -> Numbers:
    """The map without its shift."""
    return ScalarMap(m.alpha) if isinstance(m, ScalarMap) else without_bias(m)


def shifts(m: Numbers) -> bool:
    """Whether it makes anything but zeros of zeros."""
    if isinstance(m, ScalarMap):
        return m.beta != 0.0
    return m.bias is not None and bool(m.bias.any())


def promoted(scalar: ScalarMap, channels: int, dims: int) -> AffineMap:
    """The scalar map as a per-channel map of `channels` channels and `dims` spatial axes."""
    scale = torch.full((channels,), scalar.alpha, dtype=torch.float64)
    shift = torch.full((channels,), scalar.beta, dtype=torch.float64) if scalar.beta != 0.0 else None
    return channelwise(scale, shift, dims)


def _promoted(scalar: ScalarMap, like: AffineMap) -> AffineMap:
    geo.promote(scalar.structure, like.structure)
    return promoted(scalar, like.structure.outputs, like.structure.dims)


def _scaled(before: Numbers, by: ScalarMap) -> Numbers:
    if by == IDENTITY:
        return before
    if isinstance(before, ScalarMap):
        return ScalarMap(by.alpha * before.alpha, by.alpha * before.beta + by.beta)
    bias = None if before.bias is None else before.bias * by.alpha
    if by.beta != 0.0:
        bias = _plus(bias, torch.full((before.structure.outputs,), by.beta, dtype=torch.float64))
    return _with_bias(before.structure, before.kernel * by.alpha, bias)


def _turned(kernel: Tensor) -> Tensor:
    return kernel.flip(tuple(range(2, kernel.ndim)))


def _with_bias(structure: Geometry | Transposed, kernel: Tensor, bias: Tensor | None) -> AffineMap:
    if structure.unit or structure.has_bias == (bias is None):
        structure = geo.with_numbers(structure, has_bias=bias is not None)
    return AffineMap(structure, kernel, bias)


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _summed(m: AffineMap) -> Tensor:
    """(outputs,): the response to the constant 1 in every channel."""
    return m.kernel.flatten(1).sum(1)


def _carried(after: AffineMap, bias: Tensor) -> Tensor:
    """(outputs,): the response of `after` to the constant `bias`."""
    g = after.structure
    if g.channelwise:
        return _summed(after) * bias
    taps = math.prod(g.window)
    spread = bias.repeat_interleave(taps) if taps > 1 else bias
    if g.groups == 1:
        return torch.mv(after.kernel.reshape(g.outputs, -1), spread)
    per_group = after.kernel.reshape(g.groups, g.outputs // g.groups, -1)
    return torch.bmm(per_group, spread.view(g.groups, -1, 1)).flatten()


def _per_input(scale: Tensor, g: Windowed) -> Tensor:
    """A per-input-channel factor, shaped to multiply a kernel of structure `g`."""
    per_group = scale.view(g.groups, 1, g.inputs // g.groups)
    return per_group.expand(-1, g.outputs // g.groups, -1).reshape(g.outputs, -1, *(1,) * g.dims)


def _regrouped(kernel: Tensor, groups: int, fewer: int) -> Tensor:
    """The same block-diagonal map written with `fewer` groups; `fewer` divides `groups`."""
    if groups == fewer:
        return kernel
    outputs, per_group, window = kernel.shape[0], kernel.shape[1], kernel.shape[2:]
    ratio, taps = groups // fewer, math.prod(window)
    blocks = kernel.reshape(fewer, ratio, outputs // groups, per_group, taps)
    wide = torch.diag_embed(blocks.movedim(1, -1), dim1=1, dim2=3)
    return wide.reshape(outputs, ratio * per_group, *window)


def placed(part: AffineMap, whole: Windowed) -> Tensor:
    """A fresh kernel of structure `whole` that holds `part` and zeros."""
    kernel = _regrouped(part.kernel, part.structure.groups, whole.groups)
    wide = kernel.new_zeros(*kernel.shape[:2], *whole.window)
    wide[_places(part, whole)] = kernel
    return wide


def _fills(part: AffineMap, whole: Windowed) -> bool:
    """Whether its kernel is laid out like that of `whole`."""
    return part.structure.groups == whole.groups and part.structure.window == whole.window


def _places(part: AffineMap, whole: Windowed) -> tuple[slice, ...]:
    """Where the taps of `part` lie in a kernel of structure `whole`."""
    first, step = offsets(part.structure, whole)
    taps = zip(first, step, part.structure.window, strict=True)
    return (slice(None), slice(None), *(slice(f, f + s * (w - 1) + 1, s) for f, s, w in taps))


def _convolved(after: AffineMap, before: AffineMap, whole: Geometry | Transposed) -> Tensor:
    """The kernel of after ∘ before: a sum over the taps of whichever window is smaller."""
    g, dims = whole.groups, whole.dims
    mid = after.structure.inputs
    ka = _regrouped(before.kernel, before.structure.groups, g)
    kb = _regrouped(after.kernel, after.structure.groups, g)
    ka = ka.reshape(g, mid // g, whole.inputs // g, *before.structure.window)
    kb = kb.reshape(g, whole.outputs // g, mid // g, *after.structure.window)
    hop_b, window_b, hop_a, window_a = _hops(after.structure, before.structure)
    step_a, step_b = _lattice(hop_a, window_a, whole.dilation), _lattice(hop_b, window_b, whole.dilation)
    wide = ka.new_zeros(g, whole.outputs // g, whole.inputs // g, *whole.window)

    over_b = math.prod(after.structure.window) <= math.prod(before.structure.window)
    whole_of = (slice(None),) * 3
    outer, inner = (after, before) if over_b else (before, after)
    step_outer, step_inner = (step_b, step_a) if over_b else (step_a, step_b)
    for tap in itertools.product(*(range(w) for w in outer.structure.window)):
        where = tuple(
            slice(t * so, t * so + si * (w - 1) + 1, si)
            for t, so, si, w in zip(tap, step_outer, step_inner, inner.structure.window, strict=True)
        )
        at: tuple[slice | int, ...] = (*whole_of, *tap)
        if over_b:
            wide[(*whole_of, *where)] += torch.einsum("goc,gce...->goe...", kb[at], ka)
        else:
            wide[(*whole_of, *where)] += torch.einsum("goc...,gce->goe...", kb, ka[at])
    return (
        wide.reshape(whole.outputs, whole.inputs // g, *whole.window)
        if dims
        else wide.reshape(whole.outputs, whole.inputs // g)
    )


def _hops(after: Geometry | Transposed, before: Geometry | Transposed) -> tuple[Ints, Ints, Ints, Ints]:
    if isinstance(after, Transposed) and isinstance(before, Transposed):
        return transposed.hops(after, before)
    assert isinstance(after, Geometry)
    assert isinstance(before, Geometry)
    return geo.hops(after, before)


def _lattice(step: tuple[int, ...], window: tuple[int, ...], unit: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s // u if w > 1 else 1 for s, w, u in zip(step, window, unit, strict=True))
