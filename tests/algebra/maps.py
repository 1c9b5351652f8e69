"""Random affine maps, and the two oracles: torch's own convolutions, and the defining formula read aloud."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from reparamkit.algebra import AffineMap, Numbers, ScalarMap, geometry
from tests.nets import noise

_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
Draw = Callable[[st.SearchStrategy[Any]], Any]


def apply(m: Numbers, x: Tensor) -> Tensor:
    """m(x) by torch's pad and convolution; x is (N, C, *spatial)."""
    if isinstance(m, ScalarMap):
        return m.alpha * x + m.beta
    g = m.structure
    if g.dims == 0:
        y = torch.einsum("goc,ngc->ngo", *_grouped(m, x)).flatten(1)
        return y if m.bias is None else y + m.bias
    pads = [p for near, far in reversed(list(zip(g.near, g.far, strict=True))) for p in (near, far)]
    return _CONVS[g.dims](F.pad(x, pads), m.kernel, m.bias, g.stride, 0, g.dilation, g.groups)


def _grouped(m: AffineMap, x: Tensor) -> tuple[Tensor, Tensor]:
    g = m.structure
    return m.kernel.view(g.groups, g.outputs // g.groups, -1), x.view(len(x), g.groups, -1)


def formula(m: AffineMap, x: Tensor) -> Tensor:
    """y[o, i] = b[o] + Σ K[o, c, t] · x[c, s·i + lo + δ·t], in Python; len(y) = floor((n + E - 1)/s) + 1."""
    g = m.structure
    sizes = x.shape[2:]
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
                total += m.kernel[(o, c, *t)] * x[(slice(None), o // outputs * inputs + c, *at)]
        y[(slice(None), o, *i)] = total + (0.0 if m.bias is None else m.bias[o])
    return y


@st.composite
def maps(
    draw: Draw,
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
    return all(
        n + near + far >= span and n + near >= 0 and n + far >= 0 and n + near + far > 0
        for n, near, far, span in zip(size, g.near, g.far, g.span, strict=True)
    )


def error(a: Tensor, b: Tensor) -> float:
    """The largest difference; values are of size 1."""
    assert a.shape == b.shape
    return (a - b).abs().max().item() if a.numel() else 0.0
