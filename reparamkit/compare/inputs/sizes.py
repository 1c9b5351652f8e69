"""Other sizes to try a network at, where its axes are free.

Axes that carry the same symbol change together. Which multiples a network insists on (of 32, of 7…) is
not written anywhere, so the proposals go from telling to safe: steps of 32 from the example's size, then odd
sizes (they show a wrong rounding of strides), at last twice the example's size, which every multiple that the
example obeys also divides. Of a large example the first are about half as long: a border tells as much there
and costs a quarter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from reparamkit.support.inputs import Args, Kwargs

DynamicAxes = Mapping[int, Mapping[int, str]]
"""Flat tensor index, as in `reparamkit.support.inputs.tensor_leaves` -> axis -> name of its symbol."""

Ranges = Mapping[str, tuple[int, int | None]]
"""Symbol -> smallest and largest size, inclusive; None is unbounded."""

Sizes = dict[str, int]
"""Symbol -> size."""

InnerSizes = Callable[[Sizes], Sequence[int]]
"""What the sizes inside a network are where its free axes have these sizes."""

Accepts = Callable[[Args, Kwargs], bool]
"""Whether inputs are of sizes that are meant to work."""


@dataclass(frozen=True)
class FreeSizes:
    """Which sizes of a network's inputs may vary, and how far.

    Attributes:
        axes: flat tensor index -> axis -> symbol.
        ranges: symbol -> (smallest, largest size).
        accepts: a further word on whether sizes are meant to work, for instance the guards of an exported
            program. It is asked with inputs of that size.
        inner: the sizes inside the network. Where one of them is that of the example at all sizes that are
            tried, larger ones are tried: a candidate may have it as a constant.
    """

    axes: DynamicAxes
    ranges: Ranges | None = None
    accepts: Accepts | None = None
    inner: InnerSizes | None = None


ROLES = {3: {2: "length"}, 4: {2: "height", 3: "width"}, 5: {2: "depth", 3: "height", 4: "width"}}
"""Number of axes -> axis -> what it is in most networks; the first axis is the batch."""

_LARGER = ((2, 0), (2, 1), (2, 2), (4, 0), (4, 1))
"""Times the example's size, and more."""
_SMALL_SIDES = (3, 8, 16, 32)
_ENOUGH_LISTED = 3
_LARGE = 128
_SMALL = 16
"""Below this, a size is a batch, a clip length or a toy: it changes by ones, not by 32."""


def example_sizes(tensors: Sequence[torch.Tensor], dynamic_axes: DynamicAxes) -> Sizes:
    """The size that each symbol has in the example."""
    sizes: Sizes = {}
    for index, axes in dynamic_axes.items():
        for axis, symbol in axes.items():
            sizes.setdefault(symbol, tensors[index].shape[axis])
    return sizes


def ranges_of(program: ExportedProgram) -> Ranges:
    """How far the sizes of an exported program go, by the names of their symbols.

    Numbers that it takes out of tensors ("zuf0") have symbols, too, and are no sizes: they may be anything.
    """
    return {
        str(symbol): (int(interval.lower), int(interval.upper) if interval.upper.is_Integer else None)
        for symbol, interval in program.range_constraints.items()
        if interval.lower.is_Integer
    }


def other_sizes(sizes: Sizes, ranges: Ranges | None = None) -> Iterator[tuple[str, Sizes]]:
    """Propose sizes that differ from the example's, best first, each with a name.

    The first proposals change every symbol, the last only small ones (the batch). Each symbol stays within
    its range; symbols of the same size get different ones where they can, so that a transposed height and
    width shows.
    """
    seen: list[Sizes] = [sizes]
    large = [symbol for symbol, size in sizes.items() if size >= _SMALL]
    small = [symbol for symbol in sizes if symbol not in large]
    proposals: list[tuple[str, Sizes]] = []
    first = 0 if max(sizes.values(), default=0) >= _LARGE else 2
    for strategy in range(first, 6):
        proposal = {}
        for symbol, size in sizes.items():
            if size < _SMALL:
                options = _small_options(size, strategy - first + small.index(symbol))
            else:
                options = _large_options(size, strategy, large.index(symbol))
            proposal[symbol] = _first_allowed(options, symbol, ranges, size)
        proposals.append(("another size", proposal))
    proposals.append(("another batch", {**proposals[0][1], **{symbol: sizes[symbol] for symbol in large}}))
    for name, proposal in proposals:
        if proposal not in seen:
            seen.append(proposal)
            yield name, proposal


def larger_sizes(sizes: Sizes, ranges: Ranges | None = None) -> list[Sizes]:
    """Sizes from twice the example's on, at which what stays the same near the example should be another."""
    proposals = [{symbol: times * size + more for symbol, size in sizes.items()} for times, more in _LARGER]
    return [proposal for proposal in proposals if _within(proposal, sizes, ranges)]


def thorough_sizes(
    sizes: Sizes, batch: Collection[str], ranges: Ranges | None = None
) -> dict[str, list[Sizes]]:
    """Kinds of size worth trying, each with proposals of which the first that works will do.

    Args:
        sizes: those of the example.
        batch: the symbols among them that count samples; the others count places.
        ranges: symbol -> (smallest, largest), inclusive.

    Returns:
        "another batch", "batch of one", "another size" (with another batch, if that is free), "odd size",
        "even size" and "minimal size", as far as they differ from the example and from each other.
    """
    batches = [symbol for symbol in sizes if symbol in batch]
    places = [symbol for symbol in sizes if symbol not in batch]

    def with_batch(size: int) -> Sizes:
        return {**sizes, **dict.fromkeys(batches, size)}

    def with_places(choose: Callable[[int, int], int], start: Sizes = sizes) -> Sizes:
        return {**start, **{symbol: choose(sizes[symbol], i) for i, symbol in enumerate(places)}}

    several = [with_batch(number) for number in (3, 2) if batches]
    larger = [proposal for name, proposal in other_sizes(sizes, ranges) if name == "another size"]
    for places_at in (lambda size, i: size + 2 + i, lambda size, i: 2 * size):
        larger.append(with_places(places_at, with_batch(3)))
    if batches:
        larger += [{**proposal, **{symbol: sizes[symbol] for symbol in batches}} for proposal in larger]
    kinds: dict[str, list[Sizes]] = {
        "another batch": several,
        "batch of one": [with_batch(1)] if batches else [],
        "another size": larger if places else [],
        "odd size": [
            with_places(lambda size, i: _of_parity(size + 1 + 2 * i, 1)),
            with_places(lambda size, i: _of_parity(size + 1, 1)),
        ],
        "even size": [with_places(lambda size, i: _of_parity(size + 1 + 2 * i, 0))],
        "minimal size": [
            with_places(lambda size, i, least=least: min(size, least))  # type: ignore[misc]
            for least in (1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 32, 48, 64)
        ],
    }
    if all(size % 2 == 0 for symbol, size in sizes.items() if symbol in places):
        del kinds["even size"]
    if all(size % 2 for symbol, size in sizes.items() if symbol in places):
        del kinds["odd size"]
    seen = [sizes]
    chosen: dict[str, list[Sizes]] = {}
    for kind, proposals in kinds.items():
        kept = [each for each in proposals if each not in seen and _within(each, sizes, ranges)]
        if kept:
            seen.append(kept[0])
            chosen[kind] = kept
    return chosen


def special_sizes(sizes: Sizes, ranges: Ranges | None = None) -> dict[str, list[Sizes]]:
    """Sizes at which captures go wrong: one, for each symbol alone and for all together, and all equal.

    torch.export takes every free size to be at least two, and any two to be different. Whatever is not one
    is kept small, where the network takes that, so that a probe costs little.

    Args:
        sizes: those of the example.
        ranges: symbol -> (smallest, largest), inclusive. A smallest size of two counts as one: torch.export
            writes it down for every free size, whether or not the network asks for it.

    Returns:
        "height of one" and so on, "sizes of one" and "equal sizes", each with proposals, of which the first
        that works will do; without what the example shows already.
    """
    kinds: dict[str, list[Sizes]] = {}
    for symbol, size in sizes.items():
        if size == 1:
            continue
        others = [other for other in sizes if other != symbol]
        proposals = [
            {each: 1 if each == symbol else most + others.index(each) for each in sizes}
            for most in _SMALL_SIDES
        ]
        kinds[f"{symbol} of one"] = [*proposals, {**sizes, symbol: 1}]
    if len(sizes) > 1:
        kinds["sizes of one"] = [dict.fromkeys(sizes, 1)]
        kinds["equal sizes"] = [dict.fromkeys(sizes, size) for size in _SMALL_SIDES]
    widened = {symbol: (1 if low == 2 else low, high) for symbol, (low, high) in (ranges or {}).items()}
    chosen: dict[str, list[Sizes]] = {}
    for kind, proposals in kinds.items():
        kept = [each for each in proposals if each != sizes and _within(each, sizes, widened)]
        if kept:
            chosen[kind] = kept
    return chosen


def listed_sizes(
    tensors: Sequence[torch.Tensor],
    listed: Mapping[int, Sequence[tuple[int, ...]]],
    dynamic_axes: DynamicAxes,
) -> list[Sizes]:
    """Up to three of the sizes that are listed for each input: the smallest, the largest and one between.

    Args:
        tensors: the example.
        listed: flat index of an input -> the only shapes that it may have.
        dynamic_axes: those that may be changed; a shape that differs elsewhere is left out.
    """
    own = example_sizes(tensors, dynamic_axes)
    chosen: list[Sizes] = []
    for index, shapes in listed.items():
        axes, example = dynamic_axes.get(index, {}), tensors[index].shape
        proposals = []
        for shape in sorted(shapes):
            if len(shape) == len(example) and all(
                axis in axes or size == example[axis] for axis, size in enumerate(shape)
            ):
                sizes = own | {symbol: shape[axis] for axis, symbol in axes.items()}
                proposals += [sizes] if sizes != own else []
        if len(proposals) > _ENOUGH_LISTED:
            proposals = [proposals[0], proposals[len(proposals) // 2], proposals[-1]]
        chosen += proposals
    return chosen


def _of_parity(size: int, parity: int) -> int:
    return size if size % 2 == parity else size + 1


def _within(proposal: Sizes, example: Sizes, ranges: Ranges | None) -> bool:
    for symbol, size in proposal.items():
        low, high = (ranges or {}).get(symbol, (1, None))
        if size != example[symbol] and (size < low or (high is not None and size > high)):
            return False
    return True


def _small_options(size: int, first: int) -> list[int]:
    options = [3 if size != 3 else 2, size + 1, 2 * size, size + 2, size - 1]
    return options[first % len(options) :] + options[: first % len(options)]


def _large_options(size: int, strategy: int, position: int) -> list[int]:
    half = size - 32 * round(size / 64) if size >= _LARGE else size
    near = [size + 32, size - 32] if position % 2 == 0 else [size - 32, size + 64]
    odd = [size + 1 + position, size - 1 - position]
    return [
        ([half + 32] if position % 2 == 0 else [half]) + near if half < size else near,
        [half + 1 + position, *odd] if half < size else odd,
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
