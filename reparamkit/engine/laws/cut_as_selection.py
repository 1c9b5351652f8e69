"""A cut along the channels is a map whose kernel selects.

    x[:, a:b] = S x        S[o, c] = 1 where c = a + o, else 0

So a piece of a value can be added to, or concatenated with, what layers make of the whole: the sum is one
layer. As a layer of its own the map never pays.
"""

from __future__ import annotations

import torch

from reparamkit.algebra import AffineMap, Numbers, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.operators import Move, Term


def cut_as_selection(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The selection, for a cut that keeps all axes where they are."""
    move = definition.meaning
    if not isinstance(move, Move) or not move.cuts or move.value.ndim != definition.value.ndim:
        return ()
    for axis in range(max(1, move.value.ndim - 4), move.value.ndim):
        before, after = move.value.sizes, definition.value.sizes
        if before[axis] == after[axis] or [*before[:axis], *before[axis + 1 :]] != [
            *after[:axis],
            *after[axis + 1 :],
        ]:
            continue
        above = Layout.of(before, axis)
        layout = None if above is None else move.carry(above)
        if layout is not None and layout.channel_axis in (axis, None):
            return (Alternative(_selection(move, layout, axis), ()),)
    return ()


def _selection(move: Move, layout: Layout, axis: int) -> Term:
    dims = move.value.ndim - 1 - axis
    channels, selected = move.value.shape[axis], layout.channels().flatten()
    structure = geometry.pointwise(channels, len(selected), 1, dims, has_bias=False)

    def load() -> Numbers:
        kernel = torch.zeros(len(selected), channels, dtype=torch.float64)
        kernel[torch.arange(len(selected)), selected] = 1.0
        return AffineMap(structure, kernel.view(*kernel.shape, *structure.window), None)

    return Term(move.value, structure, load)
