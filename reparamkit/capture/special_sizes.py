"""The sizes that a capture may have taken for ordinary ones, and what is assumed of them.

Symbolic sizes stand for ordinary numbers. Two numbers are not ordinary, for inputs and inside the network: a
size of one is broadcast and squeezed away, a size of zero leaves nothing. So each size e of each tensor of
the graph that varies comes with the assumptions e ≠ 0 and e ≠ 1, beside the conditions that the capture
wrote down itself. `special_points` are the sizes of the inputs at which one of these breaks:

    each free size at one, at zero; several of them, and all; equal sides;
    the sizes nearest to the example's that break a condition or bring a size inside the network to one or
    zero
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._sympy.printers import PythonPrinter

Point = Mapping[str, int]
"""Symbol -> size; symbols that are left out are at the example's."""

_LARGEST = 512
_MOST_AT_ONE = 4
"""Free sizes up to which every pair of sides is tried at one."""
_SMALL = 16
"""A batch as large as the sides is tried where these are not larger."""
_MOST_LEVELS = 1
"""Sizes at which something inside is one that are tried with all sides alike."""


class _Spelling(PythonPrinter):
    def __init__(self, names: Mapping[Any, str]) -> None:
        super().__init__()
        self._names = names

    def _print_Symbol(self, symbol: object) -> str:  # noqa: N802 - the name that sympy looks for
        return self._names[symbol]


def formula(expression: Any, names: Mapping[Any, str]) -> str | None:
    """A size in terms of `names`; None if it has other symbols, such as those that depend on the data."""
    return _Spelling(names).doprint(expression) if expression.free_symbols <= names.keys() else None


def inner_sizes(graph: fx.Graph, names: Mapping[Any, str]) -> list[str]:
    """Every size that varies with the inputs, of every tensor of the graph, once, in terms of `names`.

    `names` has a name for each symbol that is the size of an axis of an input. Sizes that depend on the data
    are left out.
    """
    expressions: dict[Any, str | None] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(tensor, Tensor):
                continue
            for size in tensor.shape:
                if isinstance(size, torch.SymInt):
                    expression = size.node.expr
                    if expression not in expressions:
                        expressions[expression] = None if expression.is_number else formula(expression, names)
    return [text for text in dict.fromkeys(expressions.values()) if text]


def is_exclusion(text: str) -> bool:
    """Whether an assumption leaves out single values of an expression, and those only.

    Only such an assumption can be shown to be idle by trying what it leaves out: behind "height <= 10" there
    may be anything.
    """
    if any(word in text for word in ("%", " or ", " and ")):
        return False
    if text.count(" != ") == 1:
        return True
    for sign, largest in ((" > ", 1), (" >= ", 2)):
        _, matched, least = text.rpartition(sign)
        if matched and least.isdigit() and int(least) <= largest:
            return True
    least, matched, _ = text.partition(" < ")
    return bool(matched) and least.isdigit() and int(least) <= 1


def special_points(
    example: Point, batch: Sequence[str], breaks: Sequence[Sequence[frozenset[int]]], recorded: frozenset[int]
) -> Iterator[Point]:
    """The points to try, the most telling first.

    Args:
        example: every free symbol, with an ordinary size; symbols that a point leaves out have that.
        batch: those of them that count samples.
        breaks: for each symbol, in the order of `example`, for each size from 0 on (`sizes_tried`) the
            assumptions that break where it alone has that size.
        recorded: the assumptions that the capture wrote down itself.
    """
    symbols = list(example)
    sides = [symbol for symbol in symbols if symbol not in batch]
    for chosen in _subsets(symbols, batch):
        yield dict.fromkeys(chosen, 1)
    for chosen in (tuple(batch), tuple(sides)):
        yield dict.fromkeys(chosen, 0)
    for symbol, of_symbol in zip(symbols, breaks, strict=True):
        near = _nearest(of_symbol, example[symbol])
        own = [size for size, broken in near.items() if broken & recorded]
        others = [size for size in near if size not in own]
        for size in own:
            yield {symbol: size}
            if symbol in sides:
                yield {**dict.fromkeys(batch, 1), symbol: size}
                yield dict.fromkeys(sides, size)
        for size in others[:1]:
            yield {symbol: size}
        if symbol in sides[:1]:
            for size in [size for size in others if size > 1][:_MOST_LEVELS]:
                yield dict.fromkeys(sides, size)
    if len(sides) > 1:
        side = max(example[symbol] for symbol in sides)
        yield dict.fromkeys(sides, side)
        yield {**dict.fromkeys(batch, 1), **dict.fromkeys(sides, side)}
        yield {**dict.fromkeys(batch, 1), sides[0]: side + 1}
    if batch and sides and max(example.values()) <= _SMALL:
        yield dict.fromkeys(symbols, max(example.values()))


def ordinary_point(example: Point, batch: Sequence[str], accepts: Callable[[Point], bool]) -> Point:
    """The example's sizes, or smaller ones that tell as much: equal where those are, and nothing special.

    Args:
        accepts: whether sizes break no assumption at all.
    """
    sides = [symbol for symbol in example if symbol not in batch]
    lengths = sorted({example[symbol] for symbol in sides})
    for size in range(2, min((example[symbol] for symbol in sides), default=0)):
        point = {symbol: size + lengths.index(example[symbol]) for symbol in sides}
        if accepts(point):
            return {**example, **point}
    return example


def larger_point(example: Point, batch: Sequence[str], accepts: Callable[[Point], bool]) -> Point | None:
    """The nearest sizes with all sides longer, at most twice as long, that break no assumption at all."""
    sides = [symbol for symbol in example if symbol not in batch]
    for more in range(1, max((example[symbol] for symbol in sides), default=0) + 1):
        point = {**example, **{symbol: example[symbol] + more for symbol in sides}}
        if accepts(point):
            return point
    return None


def sizes_tried(size: int) -> range:
    """The sizes of one axis that are looked at."""
    return range(max(_LARGEST, 2 * size) + 1)


def _nearest(of_symbol: Sequence[frozenset[int]], size: int) -> dict[int, frozenset[int]]:
    """For every assumption that the symbol alone can break, the nearest size that does; nearest first."""
    chosen: dict[int, frozenset[int]] = {}
    told: set[int] = set(of_symbol[size]) if size < len(of_symbol) else set()
    for other in sorted(range(len(of_symbol)), key=lambda n: (abs(n - size), n)):
        new = of_symbol[other] - told
        if new and other != size:
            chosen[other] = new
            told |= new
    return chosen


def _subsets(symbols: Sequence[str], batch: Sequence[str]) -> list[tuple[str, ...]]:
    """Every symbol alone, pairs of sides where there are few symbols, all of the batch, all sides, all."""
    sides = [symbol for symbol in symbols if symbol not in batch]
    chosen: list[tuple[str, ...]] = [(symbol,) for symbol in symbols]
    if len(symbols) <= _MOST_AT_ONE:
        chosen += itertools.combinations(sides, 2)
    return list(dict.fromkeys([*chosen, tuple(batch), tuple(sides), tuple(symbols)]))
