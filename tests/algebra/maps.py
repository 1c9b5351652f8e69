"""Random affine maps, and the two oracles: torch's own convolutions, and the defining formula read aloud."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from reparamkit.algebra import AffineMap, Numbers, ScalarMap, Transposed, geometry
from reparamkit.algebra.transposed import exchanged, transposed
from tests.nets import noise

_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def apply(m: Numbers, x: Tensor) -> Tensor:
    """m(x) by torch's pad and convolution; x is (N, C, *spatial)."""
    if isinstance(m, ScalarMap):
        return m.alpha * x + m.beta
    g = m.structure
    if isinstance(g, Transposed):
        return _scattered(m, g, x)
    if g.dims == 0:
        y = torch.einsum("goc,ngc->ngo", *_grouped(m, x)).flatten(1)
        return y if m.bias is None else y + m.bias
    pads = [p for near, far in reversed(list(zip(g.near, g.far, strict=True))) for p in (near, far)]
    return _CONVS[g.dims](F.pad(x, pads), m.kernel, m.bias, g.stride, 0, g.dilation, g.groups)


def _scattered(m: AffineMap, t: Transposed, x: Tensor) -> Tensor:
    """All that the kernel writes, cut to where the output begins and ends."""
    weight = exchanged(m.kernel, t.groups)
    full = _TRANSPOSED[t.dims](x, weight, None, t.stride, groups=t.groups, dilation=t.dilation)
    for axis, (s, lo, e) in enumerate(zip(t.stride, t.lo, t.extent, strict=True), 2):
        length = s * (x.shape[axis] - 1) + 1 + e
        zeros = (0, 0) * (t.dims + 1 - axis)
        full = F.pad(full, (*zeros, max(lo, 0), max(length - lo - full.shape[axis], 0)))
        full = full.narrow(axis, max(-lo, 0), length)
    return full if m.bias is None else full + m.bias.view(-1, *(1,) * t.dims)


def _grouped(m: AffineMap, x: Tensor) -> tuple[Tensor, Tensor]:
    g = m.structure
    return m.kernel.view(g.groups, g.outputs // g.groups, -1), x.view(len(x), g.groups, -1)


Place = tuple[Any, ...]


def formula(m: AffineMap, x: Tensor) -> Tensor:
    """y[o, i] = b[o] + Σ K[o, c, t] · x[c, s·i + lo + δ·t], in Python; len(y) = floor((n + E - 1)/s) + 1."""
    g = m.structure
    sizes = x.shape[2:]
    if isinstance(g, Transposed):
        return _scattering_formula(m, g, x)
    lengths = [(n + e - 1) // s + 1 for n, e, s in zip(sizes, g.extent, g.stride, strict=True)]
    y = torch.zeros(len(x), g.outputs, *lengths, dtype=torch.float64)
    inputs, outputs = g.inputs // g.groups, g.outputs // g.groups
    for o, i in itertools.product(range(g.outputs), itertools.product(*map(range, lengths))):
        total = torch.zeros(len(x), dtype=torch.float64)
        for c, t in itertools.product(range(inputs), itertools.product(*map(range, g.window))):
            at = [
                s * j + low + d * u for s, j, low, d, u in zip(g.stride, i, g.lo, g.dilation, t, strict=True)
            ]
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                taken: Place = (slice(None), o // outputs * inputs + c, *at)
                total += m.kernel[o, c, *t] * x[taken]
        where: Place = (slice(None), o, *i)
        y[where] = total + (0.0 if m.bias is None else m.bias[o])
    return y


def _scattering_formula(m: AffineMap, t: Transposed, x: Tensor) -> Tensor:
    """y[o, j] = b[o] + Σ K[o, c, t] · x[c, i] where s·i + lo + δ·t = j; len(y) = s·(n - 1) + 1 + E."""
    lengths = [s * (n - 1) + 1 + e for n, e, s in zip(x.shape[2:], t.extent, t.stride, strict=True)]
    y = torch.zeros(len(x), t.outputs, *lengths, dtype=torch.float64)
    inputs, outputs = t.inputs // t.groups, t.outputs // t.groups
    for o, i in itertools.product(range(t.outputs), itertools.product(*map(range, x.shape[2:]))):
        for c, u in itertools.product(range(inputs), itertools.product(*map(range, t.window))):
            at = [
                s * j + low + d * v for s, j, low, d, v in zip(t.stride, i, t.lo, t.dilation, u, strict=True)
            ]
            if all(0 <= a < n for a, n in zip(at, lengths, strict=True)):
                where: Place = (slice(None), o, *at)
                taken: Place = (slice(None), o // outputs * inputs + c, *i)
                y[where] += m.kernel[o, c, *u] * x[taken]
    return y if m.bias is None else y + m.bias.view(-1, *(1,) * t.dims)


@st.composite
def scatterings(
    draw: st.DrawFn, /, dims: int, inputs: int | None = None, outputs: int | None = None, **fixed: Any
) -> AffineMap:
    """A transposed convolution with random weights; `fixed` holds stride, extent or dilation, per axis."""

    def ints(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    inputs = inputs or draw(st.sampled_from([1, 2, 4, 6]))
    outputs = outputs or draw(st.sampled_from([1, 2, 4, 6]))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4, 6) if inputs % g == 0 and outputs % g == 0]))
    window = ints(1, 4 if dims < 3 else 2)
    stride = fixed.get("stride") or (draw(st.integers(2, 3)), *ints(1, 3)[1:])
    dilation = fixed.get("dilation") or ints(1, 3)
    near = ints(0, 2) if draw(st.booleans()) else (0,) * dims
    room = [max(s, d if w > 1 else 1) - 1 for s, d, w in zip(stride, dilation, window, strict=True)]
    more = tuple(draw(st.integers(0, r)) for r in room)
    if "extent" in fixed:
        more = tuple(
            e + 2 * p - d * (w - 1)
            for e, p, d, w in zip(fixed["extent"], near, dilation, window, strict=True)
        )
    biased = fixed["biased"] if "biased" in fixed else draw(st.booleans())
    structure = transposed(inputs, outputs, groups, window, stride, dilation, near, more, has_bias=biased)
    number = draw(st.integers(0, 1000))
    kernel = noise(outputs, inputs // groups, *window, seed=number)
    return AffineMap(structure, kernel, noise(outputs, seed=number + 1) if biased else None)


@st.composite
def maps(
    draw: st.DrawFn,
    /,
    dims: int,
    inputs: int | None = None,
    outputs: int | None = None,
    *,
    crops: bool = True,
    **fixed: Any,
) -> AffineMap:
    """A map with random weights; `fixed` holds stride or extent, per axis."""

    def ints(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    inputs = inputs or draw(st.sampled_from([1, 2, 4, 6]))
    outputs = outputs or draw(st.sampled_from([1, 2, 4, 6]))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4, 6) if inputs % g == 0 and outputs % g == 0]))
    window = ints(1, 3 if dims < 3 else 2)
    if draw(st.booleans()):
        window = (1,) * dims
    stride = fixed.get("stride") or tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(dims))
    dilation = ints(1, 3)
    low = -1 if crops else 0
    near = ints(low, 2)
    if draw(st.booleans()):
        near = (0,) * dims
    far = ints(low, 2) if draw(st.booleans()) else near
    if "extent" in fixed:
        far = tuple(
            e - p + d * (w - 1) for e, p, d, w in zip(fixed["extent"], near, dilation, window, strict=True)
        )
    biased = draw(st.booleans())
    structure = geometry.convolution(
        inputs, outputs, groups, window, stride, dilation, near, far, has_bias=biased
    )
    number = draw(st.integers(0, 1000))
    kernel = noise(outputs, inputs // groups, *window, seed=number)
    return AffineMap(structure, kernel, noise(outputs, seed=number + 1) if biased else None)


def sizes(dims: int, longest: int = 11) -> list[tuple[int, ...]]:
    """Input sizes, short and long, odd and even, not square."""
    if dims == 0:
        return [()]
    return [tuple(n + axis for axis in range(dims)) for n in range(1, longest)]


def runs(m: Numbers, size: tuple[int, ...]) -> bool:
    """Whether the map has an output at that input size (and torch computes it)."""
    if isinstance(m, ScalarMap):
        return True
    g = m.structure
    if isinstance(g, Transposed):
        return all(s * (n - 1) + 1 + e > 0 for n, e, s in zip(size, g.extent, g.stride, strict=True))
    return all(
        n + near + far >= span and n + near >= 0 and n + far >= 0 and n + near + far > 0
        for n, near, far, span in zip(size, g.near, g.far, g.span, strict=True)
    )


def error(a: Tensor, b: Tensor) -> float:
    """The largest difference; values are of size 1."""
    assert a.shape == b.shape
    return (a - b).abs().max().item() if a.numel() else 0.0
