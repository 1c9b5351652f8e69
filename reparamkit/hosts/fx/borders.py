"""Padding by a constant per channel, as Diverse Branch Block and ECBSR write it: slice by slice.

    out = pad(y);  out[:, :, :p] = c;  out[:, :, -p:] = c;  out[:, :, :, :p] = c;  out[:, :, :, -p:] = c

Made functional, every assignment is a nest of slices, one copy and as many `slice_scatter`. The nest is
followed value by value: each is known as a part of the padded tensor with what was written into it so far.
When all sides, and nothing else, hold the same constant per channel, the value is y padded by c. If c is what
y's map makes of zero, that is the map itself with its window reaching over the border.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from reparamkit.hosts.fx.constants import Constants

aten = torch.ops.aten
_END = sys.maxsize
_FULL = (0, _END)

Ranges = tuple[tuple[int, int], ...]
Write = tuple[Ranges, fx.Node]


@dataclass(frozen=True)
class Area:
    """The part `ranges` of what `pad` returned, after `writes`; or the constant that is to fill that part."""

    pad: fx.Node
    ranges: Ranges
    writes: frozenset[Write] = frozenset()
    fill: fx.Node | None = None


@dataclass(frozen=True)
class Border:
    """`pad` with its zeros replaced by the constant `fill`, by way of the values `covers`."""

    pad: fx.Node
    fill: fx.Node
    covers: tuple[fx.Node, ...]


class Borders:
    """Follows the nodes of a graph in order."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._areas: dict[fx.Node, Area] = {}
        self._spread: dict[fx.Node, fx.Node] = {}
        self._touched: dict[fx.Node, list[fx.Node]] = {}

    def follow(self, node: fx.Node) -> Border | None:
        """Take the next node in; a `Border` if it completes one."""
        if node.target in (aten.pad.default, aten.constant_pad_nd.default):
            self._areas[node] = Area(node, (_FULL,) * node.meta["val"].ndim)
            self._touched[node] = [node]
            return None
        if node.target in (aten.expand.default, aten.reshape.default):
            self._spread_constant(node)
            return None
        area = self._area(node)
        if area is None:
            return None
        self._areas[node] = area
        self._touched[area.pad].append(node)
        return self._complete(node, area)

    def _spread_constant(self, node: fx.Node) -> None:
        root: Any = node.args[0]
        root = self._spread.get(root, root)
        if root in self._constants:
            self._spread[node] = root

    def _area(self, node: fx.Node) -> Area | None:
        base = self._areas.get(node.args[0]) if node.args else None  # type: ignore[arg-type]
        if base is None or base.fill is not None:
            return None
        if node.target is aten.slice.Tensor:
            ranges = _narrowed(base.ranges, node.args[1:])
            return None if ranges is None else replace(base, ranges=ranges)
        source: Any = node.args[1] if len(node.args) > 1 else None
        if node.target is aten.copy.default:
            fill = self._constant(source)
            if fill is not None and source not in self._constants:
                self._touched[base.pad].append(source)
            return None if fill is None else replace(base, fill=fill)
        if node.target is not aten.slice_scatter.default:
            return None
        part, ranges = self._areas.get(source), _narrowed(base.ranges, node.args[2:])
        if part is None or part.pad is not base.pad or part.ranges != ranges:
            return None
        if part.fill is not None:
            return replace(base, writes=base.writes | {(part.ranges, part.fill)})
        return replace(base, writes=base.writes | part.writes)

    def _constant(self, node: Any) -> fx.Node | None:
        root = self._spread.get(node, node)
        while root in self._constants and root.target in (aten.reshape.default, aten.expand.default):
            root = root.args[0]
        return root if root in self._constants else None

    def _complete(self, node: fx.Node, area: Area) -> Border | None:
        fills = {fill for _, fill in area.writes}
        if len(fills) != 1 or any(r != _FULL for r in area.ranges):
            return None
        (fill,) = fills
        value = fill.meta.get("val")
        channels = area.pad.meta["val"].shape[1]
        if not isinstance(value, Tensor) or value.numel() != channels:
            return None
        if {ranges for ranges, _ in area.writes} != _sides(area.pad):
            return None
        covers = [n for n in self._touched[area.pad] if n is not node]
        return Border(area.pad, fill, tuple(covers))


def _narrowed(ranges: Ranges, arguments: Any) -> Ranges | None:
    """The ranges after a slice (dim, start, end, step); None for anything but a plain one."""
    given = list(arguments)
    dim, start, end, step = given + [0, 0, _END, 1][len(given) :]
    start, end = start or 0, _END if end is None else end
    if step != 1 or not isinstance(start, int) or not isinstance(end, int):
        return None
    if (start, end) == _FULL:
        return ranges
    dim %= len(ranges)
    if ranges[dim] != _FULL:
        return None
    return (*ranges[:dim], (start, end), *ranges[dim + 1 :])


def _sides(pad: fx.Node) -> set[Ranges]:
    """The ranges of the zeros on each side."""
    amounts: Any = pad.args[1]
    ndim = pad.meta["val"].ndim
    found: set[Ranges] = set()
    for i in range(len(amounts) // 2):
        axis = ndim - 1 - i
        for width, side in ((amounts[2 * i], (0, amounts[2 * i])), (amounts[2 * i + 1], None)):
            if not isinstance(width, int) or width < 0:
                return set()
            if width:
                ranges = [_FULL] * ndim
                ranges[axis] = side if side is not None else (-width, _END)
                found.add(tuple(ranges))
    return found
