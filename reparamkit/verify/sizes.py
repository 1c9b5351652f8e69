"""Other sizes to try a network at, where its axes are free.

Axes that carry the same symbol change together. Which multiples a network insists on (of 32, of 7…) is
not written anywhere, so the proposals go from telling to safe: near the example's size in steps of 32, then
odd sizes (they show a wrong rounding of strides), at last twice the example's size, which every multiple
that the example obeys also divides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

DynamicAxes = Mapping[int, Mapping[int, str]]
"""Flat tensor index, as in `reparamkit.inputs.tensor_leaves` -> axis -> name of its symbol."""

Ranges = Mapping[str, tuple[int, int | None]]
"""Symbol -> smallest and largest size, inclusive; None is unbounded."""

Sizes = dict[str, int]
"""Symbol -> size."""

_SMALL = 16
"""Below this, a size is a batch, a clip length or a toy: it changes by ones, not by 32."""


def example_sizes(tensors: list[torch.Tensor], dynamic_axes: DynamicAxes) -> Sizes:
    """The size that each symbol has in the example."""
    sizes: Sizes = {}
    for index, axes in dynamic_axes.items():
        for axis, symbol in axes.items():
            sizes.setdefault(symbol, tensors[index].shape[axis])
    return sizes


def other_sizes(sizes: Sizes, ranges: Ranges | None = None) -> Iterator[tuple[str, Sizes]]:
    """Propose sizes that differ from the example's, best first, each with a name.

    The first proposals change every symbol, the last only small ones (the batch). Each symbol stays within
    its range; symbols of the same size get different ones where they can, so that a transposed height and
    width shows.
    """
    seen: list[Sizes] = [sizes]
    large = [symbol for symbol, size in sizes.items() if size >= _SMALL]
    proposals: list[tuple[str, Sizes]] = []
    for strategy in range(4):
        proposal = {}
        for symbol, size in sizes.items():
            if size < _SMALL:
                options = _small_options(size)
            else:
                options = _large_options(size, strategy, large.index(symbol))
            proposal[symbol] = _first_allowed(options, symbol, ranges, size)
        proposals.append(("another size", proposal))
    proposals.append(("another batch", {**proposals[0][1], **{symbol: sizes[symbol] for symbol in large}}))
    for name, proposal in proposals:
        if proposal not in seen:
            seen.append(proposal)
            yield name, proposal


def _small_options(size: int) -> list[int]:
    return [3 if size != 3 else 2, size + 1, 2 * size, size + 2, size - 1]


def _large_options(size: int, strategy: int, position: int) -> list[int]:
    near = [size + 32, size - 32] if position % 2 == 0 else [size - 32, size + 64]
    odd = [size + 1 + position, size - 1 - position]
    return [
        [*near, size + 64, size + 32, *odd],
        odd,
        [size + 32, 2 * size],
        [2 * size, size // 2],
    ][strategy]


def _first_allowed(options: list[int], symbol: str, ranges: Ranges | None, otherwise: int) -> int:
    low, high = (ranges or {}).get(symbol, (1, None))
    for option in options:
        if option != otherwise and option >= max(low, 1) and (high is None or option <= high):
            return option
    return otherwise
