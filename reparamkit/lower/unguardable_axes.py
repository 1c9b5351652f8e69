"""Files that cannot refuse a size, and what must not be free in them.

A graph was captured under assumptions on the sizes of its inputs ("height <= 10": the network branches
there). A folded module checks them whenever it is called, and so does a `.pt2`. An ONNX file or a Core ML
package cannot: where an axis is free, it answers every size. So the sizes at which an assumption breaks are
tried: where the network itself answers, and is not shown to compute what the graph computes
(`reparamkit.capture.witness`), the axis must not be free in such a file.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.program import Program
from reparamkit.capture.size_conditions import Place
from reparamkit.capture.sizes import SizeGuards
from reparamkit.capture.special_sizes import sizes_tried
from reparamkit.capture.witness import Answer
from reparamkit.support.inputs import Args, Kwargs, resized, tensor_leaves
from reparamkit.support.isolation import call_untouched, weights_kept
from reparamkit.support.quiet import quiet

_TRIED = 4  # sizes for each assumption
_TRIED_IN_ALL = 16  # for each symbol, and for each assumption in several of them
_LOOKED_AT = 8_000  # sizes that are looked at for each assumption in several symbols
_IS_NUMBER = re.compile(r" == -?\d+$|^-?\d+ == ")
_LARGEST = 2**20
_MOST_ELEMENTS = 2**24  # of inputs that a network is run on


def unguardable_symbols(
    program: Program, original: nn.Module | ExportedProgram, folded: nn.Module, example: tuple[Args, Kwargs]
) -> dict[str, str]:
    """Symbol of a free axis -> why it must not be free in a file that cannot refuse a size.

    `example` has the sizes at which such an axis is fixed.
    """
    reasons: dict[str, str] = {}
    guards = program.guards
    if guards is None or not isinstance(folded, fx.GraphModule):
        return reasons
    needed = _needed(guards)
    trials = _Trials(program, guards, needed, original, folded)
    leaves = [tensor for _, tensor in tensor_leaves(*example)]
    before = -1
    while before < len(reasons):  # what is fixed now does not lead away from an assumption any more
        before = len(reasons)
        fixed = {s: leaves[i].shape[a] for s in reasons for i, a in program.places_with(s)[:1]}
        for changed in _beyond(program, guards, needed, fixed):
            symbols = {s for s in program.example_sizes() if changed.keys() & set(program.places_with(s))}
            symbols -= fixed.keys()
            if not symbols or reasons.keys() & symbols:
                continue
            reason = trials.wrong_at(changed)
            if reason is not None:
                asked = trials.symbols_asked(changed) & symbols
                # rather a side than the batch
                reasons[max(sorted(asked or symbols), key=lambda s: program.axes_of(s)[0])] = reason
    return reasons


def exportable_axes(program: Program, unguardable: Collection[str]) -> dict[int, dict[int, str]]:
    """The program's free axes but those of these symbols."""
    kept = {i: {a: s for a, s in axes.items() if s not in unguardable} for i, axes in program.axes.items()}
    return {index: axes for index, axes in kept.items() if axes}


class _Unguarded(fx.Interpreter):
    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(self.fetch_attr(target), SizeGuards):
            return None
        return super().call_module(target, args, kwargs)


class _Trials:
    """What a file would answer beyond the assumptions of its graph, beside what the network does there."""

    def __init__(
        self,
        program: Program,
        guards: SizeGuards,
        needed: frozenset[str],
        original: nn.Module | ExportedProgram,
        folded: fx.GraphModule,
    ) -> None:
        self._program, self._guards = program, guards
        self._original: nn.Module = original if isinstance(original, nn.Module) else original.module()
        self._graph = _Unguarded(folded)
        self._needed = needed
        self._wrong: dict[tuple[tuple[Place, int], ...], bool] = {}

    def wrong_at(self, changed: Mapping[Place, int]) -> str | None:
        """Why a file that answers these sizes of the inputs may be wrong; None where none is."""
        broken = self._broken(changed)
        key = tuple(sorted(changed.items()))
        if key not in self._wrong:
            self._wrong[key] = _is_large(self._program, changed) or self._differs(changed, broken)
        if not self._wrong[key]:
            return None
        asked = [text for text in broken if text in self._needed] or broken
        assumed = f", which assumes {self._guards.spoken(asked[0])}" if asked else ""
        sizes = ", ".join(str(size) for size in dict.fromkeys(changed.values()))
        return f"at a size of {sizes} the network may do something else than what was captured{assumed}"

    def symbols_asked(self, changed: Mapping[Place, int]) -> set[str]:
        """The symbols in what has to hold and does not for these sizes."""
        texts = self._needed.intersection(self._broken(changed))
        return set().union(*(self._program.symbols_in(self._guards, text) for text in texts))

    def _broken(self, changed: Mapping[Place, int]) -> list[str]:
        return self._guards.broken(_sizes(self._program, self._guards, changed))

    def _differs(self, changed: Mapping[Place, int], broken: Sequence[str]) -> bool:
        inputs = resized(self._program.args, self._program.kwargs, changed)
        return not self._is_idle(changed, broken, inputs) and _answers(self._graph, *inputs)

    def _is_idle(
        self, changed: Mapping[Place, int], broken: Sequence[str], inputs: tuple[Args, Kwargs]
    ) -> bool:
        """Whether the network refuses these inputs itself, or is shown to compute what the graph does."""
        if broken and all(text.endswith(" != 0") and text not in self._guards.asked for text in broken):
            return True  # nothing is promised of what a file makes of tensors without elements
        if self._program.witness is not None:
            answer = self._program.witness.at(changed).answer
            if answer is Answer.REFUSED:
                return True
            return answer is Answer.SAME and not self._needed.intersection(broken)
        try:
            with quiet():
                call_untouched(self._original, *inputs)
        except Exception:  # whatever the network raises for a size that it does not take itself
            return True
        return False


def _needed(guards: SizeGuards) -> frozenset[str]:
    """The assumptions that no trial shows to be idle.

    Those by which the graph was rewritten, what the network asked of sizes itself, and the numbers that sizes
    are in the graph. That two sizes are the same is no number: what broadcasts does so in the graph as well.
    """
    return guards.permanent | guards.asked | {text for text in guards.assumptions if _IS_NUMBER.search(text)}


def _answers(graph: _Unguarded, args: Args, kwargs: Kwargs) -> bool:
    """Whether the folded graph runs on these inputs when nothing keeps it from that."""
    leaves = [
        leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves((args, kwargs))
    ]
    try:
        with torch.no_grad(), quiet(), weights_kept(graph.module):
            graph.run(*leaves, enable_io_processing=False)
    except Exception:  # then the file does not answer either
        return False
    return True


def _beyond(
    program: Program, guards: SizeGuards, needed: frozenset[str], fixed: Mapping[str, int]
) -> Iterator[dict[Place, int]]:
    """Sizes of the inputs that the guards rule out and a file does not, where these symbols are fixed.

    For each symbol, for all sides and for all symbols together, the sizes nearest to the example's at which
    an assumption breaks; then what the capture was seen to answer otherwise; then axes of one symbol
    that differ, which a file does not compare; then sizes that break an assumption in several symbols.
    """
    home = {s: size for s, size in fixed.items() if size != program.example_sizes()[s]}
    example = {s: size for s, size in program.example_sizes().items() if s not in fixed}
    sides = [symbol for symbol in example if 0 not in program.axes_of(symbol)]
    groups = [[symbol] for symbol in example]
    groups += [group for group in (sides, list(example)) if len(group) > 1]
    for group in groups:
        told: Counter[str] = Counter()
        tried = 0
        size = max(example[symbol] for symbol in group)
        for other in sorted(sizes_tried(size), key=lambda n, size=size: abs(n - size)):  # type: ignore[misc]
            point = {**home, **dict.fromkeys(group, other)}
            broken = guards.broken(program.sizes_of(guards, point))
            if tried < _TRIED_IN_ALL and any(told[text] < _TRIED for text in broken):
                changed = program.places_of(point)
                if len(group) == 1 or not _is_large(program, changed):
                    tried += 1
                    told.update(broken)
                    yield changed
    for differing in program.differing:
        yield program.places_of({**{s: n for s, n in differing.items() if s in example}, **home})
    for symbol, size in example.items():
        for place in program.places_with(symbol)[1:]:
            for other in (size + 1, size - 1, 1, 2 * size):
                if other not in (size, 0):
                    yield {**program.places_of(home), place: other}
    for text in guards.assumptions:
        symbols = [symbol for symbol in program.symbols_in(guards, text) if symbol in example]
        if text in needed:
            for symbol in symbols:
                yield from _far_away(program, guards, text, symbol, home)
        if len(symbols) > 1 and (text in needed or text not in guards.synthetic):
            for point in _breaking(program, guards, text, {s: example[s] for s in symbols}, home):
                changed = program.places_of({**home, **point})
                if not _is_large(program, changed):
                    yield changed


def _far_away(
    program: Program, guards: SizeGuards, text: str, symbol: str, home: Mapping[str, int]
) -> Iterator[dict[Place, int]]:
    """The least size of a symbol beyond those that are all looked at that breaks an assumption."""

    def holds(size: int) -> bool:
        return guards.holds([text], program.sizes_of(guards, {**home, symbol: size}))

    within = sizes_tried(program.example_sizes()[symbol])[-1]
    if not holds(within):
        return
    beyond = within
    while beyond < _LARGEST:
        within, beyond = beyond, 2 * beyond
        if not holds(beyond):
            least = bisect.bisect_left(range(within, beyond), True, key=lambda size: not holds(size))
            yield program.places_of({**home, symbol: within + least})
            return


def _breaking(
    program: Program, guards: SizeGuards, text: str, example: Mapping[str, int], home: Mapping[str, int]
) -> list[dict[str, int]]:
    """Sizes of these symbols that break an assumption: those that break the fewest others, nearest first.

    One of the symbols is looked at everywhere, the others at a few sizes; more of them, at fewer.
    """
    few = {s: dict.fromkeys((size, 1, 2, size + 1, 3, 2 * size, size - 1)) for s, size in example.items()}
    points: list[tuple[int, int, int, dict[str, int]]] = []
    looked_at = itertools.count()
    for along in example:
        others = [symbol for symbol in example if symbol != along]
        combinations = itertools.product(*(few[symbol] for symbol in others))
        for sizes, other in itertools.product(combinations, sizes_tried(example[along])[1:]):
            if next(looked_at) >= _LOOKED_AT * len(example):
                break
            point = {**dict(zip(others, sizes, strict=True)), along: other}
            given = program.sizes_of(guards, {**home, **point})
            if 0 not in given and not guards.holds([text], given):
                changed = {symbol: size for symbol, size in point.items() if size != example[symbol]}
                distance = sum(abs(size - example[symbol]) for symbol, size in changed.items())
                points.append((len(guards.broken(given)), len(changed), distance, changed))
    points.sort(key=lambda each: each[:3])
    return [changed for *_, changed in points[:_TRIED_IN_ALL]]


def _is_large(program: Program, changed: Mapping[Place, int]) -> bool:
    """Whether nobody wants to run a network on inputs of these sizes: what it does there is not shown."""
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    shapes = [[changed.get((i, a), n) for a, n in enumerate(x.shape)] for i, x in enumerate(leaves)]
    return sum(math.prod(shape) for shape in shapes) > _MOST_ELEMENTS


def _sizes(program: Program, guards: SizeGuards, changed: Mapping[Place, int]) -> list[int]:
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    return [changed.get(place, leaves[place[0]].shape[place[1]]) for place in guards.places]
