"""Values that are cut out of others: what a padding by what is there holds in its middle.

    x = C pad_q(x)        pad_p(x) = C pad_q(x)        p <= q on every side, C a crop

So layers behind paddings of one value by one mode, and layers of the value itself, are layers of the widest
of them: a sum of these is one convolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from reparamkit.algebra import AffineMap, Geometry, Inexact, Map, Numbers, affine, geometry
from reparamkit.engine.graph import Node
from reparamkit.operators import Move


def crop_of(nodes: Sequence[Node], outer: int, inner: int) -> Geometry | None:
    """The crop that makes the value `inner` of `outer`; None if there is none."""
    around, held = nodes[outer].meaning, nodes[inner].meaning
    if not isinstance(around, Move) or around.pads is None:
        return None
    mode, near, far = around.pads
    if around.value.id != inner:
        if not isinstance(held, Move) or held.pads is None or held.pads[0] != mode:
            return None
        if held.value.id != around.value.id:
            return None
        near = tuple(a - b for a, b in zip(near, held.pads[1], strict=True))
        far = tuple(a - b for a, b in zip(far, held.pads[2], strict=True))
    channels = around.value.sizes[1]
    if min(near + far) < 0 or not isinstance(channels, int):
        return None
    plain = geometry.channelwise(channels, len(near), has_bias=False)
    return replace(plain, lo=near, extent=tuple(-a - b for a, b in zip(near, far, strict=True)), unit=True)


Step = tuple[int, int, Geometry]
"""A source, another one that it lies in, and the crop that makes it of that."""


def joined(nodes: Sequence[Node], terms: Mapping[int, Map]) -> tuple[dict[int, Map], list[Step]]:
    """The terms with what lies in other sources taken from these, and how."""
    left, steps = dict(terms), list[Step]()
    pads = [s for s in sorted(terms) if isinstance(m := nodes[s].meaning, Move) and m.pads is not None]
    for outer, inner in itertools.product(pads, sorted(terms)):
        crop = crop_of(nodes, outer, inner) if {outer, inner} <= left.keys() and outer != inner else None
        if crop is None:
            continue
        with suppress(Inexact):
            left[outer] = geometry.add(left[outer], geometry.compose(left[inner], crop))
            del left[inner]
            steps.append((inner, outer, crop))
    return left, steps


def joined_numbers(nodes: Sequence[Node], terms: Mapping[int, Numbers]) -> dict[int, Numbers]:
    """The same with numbers."""
    left = dict(terms)
    for inner, outer, crop in joined(nodes, {source: m.structure for source, m in terms.items()})[1]:
        ones = torch.ones(crop.outputs, 1, *crop.window, dtype=torch.float64)
        cropped = affine.compose(left.pop(inner), AffineMap(crop, ones, None))
        left[outer] = affine.add(left[outer], cropped)
    return left
