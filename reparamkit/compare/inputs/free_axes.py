"""Which axes of the inputs may have another size: those that neither side declares fixed.

An exported program, an ONNX file and an OpenVINO IR say so; what a module takes shows only when it is tried,
so of two modules the first axis and the spatial ones are proposed. Axes that either side calls by one symbol
change together, and so do a module's batches, and its heights of one length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from reparamkit.compare.inputs.sizes import ROLES, DynamicAxes, Ranges
from reparamkit.runners.base import InputSpec

Place = tuple[int, int]
"""Flat tensor index and axis."""


def free_axes(
    tensors: list[torch.Tensor],
    sides: list[tuple[Callable[[int], InputSpec | None], Ranges]],
) -> tuple[DynamicAxes, Ranges]:
    """The axes that may be changed, as `reparamkit.compare.inputs.sizes` takes them.

    Args:
        tensors: the example, in call order.
        sides: for each of the two networks what it declares of the input at a flat index, None where it
            does not declare any, and the ranges of its symbols.
    """
    groups = {place: {place} for place in _proposed(tensors, sides)}
    limits: dict[Place, tuple[int, int | None]] = dict.fromkeys(groups, (1, None))
    for spec_of, ranges in sides:
        by_symbol: dict[str, list[Place]] = {}
        fixed: set[Place] = set()
        for place in list(groups):
            spec = spec_of(place[0])
            if spec is None or spec.shape is None:
                continue
            size = spec.shape[place[1]]
            if isinstance(size, int) or not _is_symbol(size, spec):
                fixed.add(place)
                continue
            by_symbol.setdefault(size, []).append(place)
            limits[place] = _both(limits[place], ranges.get(size, (1, None)))
        fixed |= {place for symbol in _bound(tensors, spec_of) for place in by_symbol.get(symbol, [])}
        for places in by_symbol.values():
            _unite(groups, places)
        for place in fixed:
            for other in groups.get(place, set()) | {place}:
                groups.pop(other, None)
    return _named(tensors, groups, limits)


def _proposed(
    tensors: list[torch.Tensor], sides: list[tuple[Callable[[int], InputSpec | None], Ranges]]
) -> list[Place]:
    """Every axis that a side declares free, and where none declares anything those worth a try."""
    proposed = []
    for index, tensor in enumerate(tensors):
        silent = all(spec_of(index) is None for spec_of, _ in sides)
        axes = range(tensor.ndim)
        proposed += [
            (index, axis) for axis in axes if not silent or axis == 0 or axis in ROLES.get(tensor.ndim, {})
        ]
    return proposed


def _unite(groups: dict[Place, set[Place]], places: list[Place]) -> None:
    united = set().union(*(groups[place] for place in places)) if places else set()
    for place in united:
        groups[place] = united


def _named(
    tensors: list[torch.Tensor],
    groups: dict[Place, set[Place]],
    limits: dict[Place, tuple[int, int | None]],
) -> tuple[DynamicAxes, Ranges]:
    """A readable symbol for each group; groups of one role and one length become one."""
    axes: dict[int, dict[int, str]] = {}
    ranges: dict[str, tuple[int, int | None]] = {}
    sizes: dict[str, int] = {}
    for members in sorted({min(group): frozenset(group) for group in groups.values()}.items()):
        (index, axis), places = members
        length = tensors[index].shape[axis]
        if any(tensors[i].shape[a] != length for i, a in places) or length == 0:
            continue
        role = "batch" if axis == 0 else ROLES.get(tensors[index].ndim, {}).get(axis, f"axis {axis}")
        name = role
        while name in sizes and sizes[name] != length:
            name += "'"
        sizes[name] = length
        for i, a in places:
            axes.setdefault(i, {})[a] = name
            ranges[name] = _both(ranges.get(name, (1, None)), limits[i, a])
    return axes, ranges


def _both(left: tuple[int, int | None], right: tuple[int, int | None]) -> tuple[int, int | None]:
    upper = [bound for bound in (left[1], right[1]) if bound is not None]
    return max(left[0], right[0]), min(upper, default=None)


def _is_symbol(size: str, spec: InputSpec) -> bool:
    return size.isidentifier() or size.startswith(f"{spec.name}[")


def _bound(tensors: list[torch.Tensor], spec_of: Callable[[int], InputSpec | None]) -> set[str]:
    """Symbols that occur in a formula of a side: their axes cannot be changed on their own."""
    symbols: set[str] = set()
    for index in range(len(tensors)):
        spec = spec_of(index)
        for size in (spec.shape or ()) if spec is not None else ():
            if isinstance(size, str) and spec is not None and not _is_symbol(size, spec):
                symbols |= set("".join(c if c.isalnum() or c == "_" else " " for c in size).split())
    return symbols
