"""Files that cannot refuse a size, and what must not be free in them.

A graph was captured under assumptions on the sizes of its inputs ("height <= 10": the network branches
there). A folded module checks them whenever it is called, and so does a `.pt2`. An ONNX file or a Core ML
package cannot: where an axis is free, it answers every size. So the sizes at which an assumption breaks are
tried: where the network itself answers, and is not shown to compute what the graph computes
(`reparamkit.capture.witness`), the axis must not be free in such a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.conditions import Place
from reparamkit.capture.program import Program
from reparamkit.capture.sizes import SizeGuards
from reparamkit.capture.special_sizes import sizes_tried
from reparamkit.capture.witness import Answer
from reparamkit.inputs import Args, Kwargs, resized, tensor_leaves
from reparamkit.quiet import quiet
from reparamkit.untouched import call_untouched, weights_kept

_TRIED = 4  # sizes for each assumption
_TRIED_IN_ALL = 16  # for each symbol


def settled_symbols(
    program: Program, original: nn.Module | ExportedProgram, folded: nn.Module
) -> dict[str, str]:
    """Symbol of a free axis -> why it must not be free in a file that cannot refuse a size."""
    settled: dict[str, str] = {}
    guards = program.guards
    if guards is None or not isinstance(folded, fx.GraphModule):
        return settled
    graph = _Unguarded(folded)
    runs: nn.Module = original if isinstance(original, nn.Module) else original.module()
    for symbols, changed in _beyond(program, guards):
        symbols = {symbol for symbol in symbols if program.places_with(symbol)}
        if not symbols or settled.keys() & symbols:
            continue
        inputs = resized(program.args, program.kwargs, changed)
        broken = guards.broken(_sizes(program, guards, changed))
        if _is_idle(program, runs, changed, broken, inputs) or not _answers(graph, *inputs):
            continue
        symbol = max(symbols, key=lambda name: program.axes_of(name)[0])  # rather a side than the batch
        place = next(place for place in changed if place in program.places_with(symbol))
        assumed = f", which assumes {guards.spoken(broken[0])}" if broken else ""
        settled[symbol] = (
            f"at a size of {changed[place]} the network may do something else than what was captured{assumed}"
        )
    return settled


def without(program: Program, settled: dict[str, str]) -> dict[int, dict[int, str]]:
    """The program's free axes but those of these symbols."""
    kept = {i: {a: s for a, s in axes.items() if s not in settled} for i, axes in program.axes.items()}
    return {index: axes for index, axes in kept.items() if axes}


class _Unguarded(fx.Interpreter):
    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(self.fetch_attr(target), SizeGuards):
            return None
        return super().call_module(target, args, kwargs)


def _is_idle(
    program: Program,
    original: nn.Module,
    changed: Mapping[Place, int],
    broken: list[str],
    inputs: tuple[Args, Kwargs],
) -> bool:
    """Whether the network refuses these inputs itself, or is shown to compute what the folded graph does."""
    assert program.guards is not None
    if broken and all(text.endswith(" != 0") and text not in program.guards.asked for text in broken):
        return True  # nothing is promised of what a file makes of tensors without elements
    if program.witness is not None:
        answer = program.witness.at(changed).answer
        if answer is Answer.REFUSED:
            return True
        needed = program.guards.permanent | program.guards.asked
        return answer is Answer.SAME and not needed.intersection(broken)
    try:
        with quiet():
            call_untouched(original, *inputs)
    except Exception:  # whatever the network raises for a size that it does not take itself
        return True
    return False


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


def _beyond(program: Program, guards: SizeGuards) -> Iterator[tuple[set[str], dict[Place, int]]]:
    """Sizes that the guards rule out and a file does not: the symbols that change, and the inputs' sizes.

    For each symbol, for all sides and for all symbols together, the sizes nearest to the example's at which
    an assumption breaks; then what the capture was seen to answer otherwise; then axes of one symbol
    that differ, which a file does not compare.
    """
    example = program.example_sizes()
    sides = [symbol for symbol in example if 0 not in program.axes_of(symbol)]
    groups = [[symbol] for symbol in example]
    groups += [group for group in (sides, list(example)) if len(group) > 1]
    for group in groups:
        told: Counter[str] = Counter()
        tried = 0
        size = max(example[symbol] for symbol in group)
        for other in sorted(sizes_tried(size), key=lambda n, size=size: abs(n - size)):  # type: ignore[misc]
            point = dict.fromkeys(group, other)
            broken = guards.broken(program.sizes_of(guards, point))
            if tried < _TRIED_IN_ALL and any(told[text] < _TRIED for text in broken):
                tried += 1
                told.update(broken)
                yield set(group), program.places_of(point)
    for differing in program.differing:
        yield set(differing), program.places_of(differing)
    for symbol, size in example.items():
        for place in program.places_with(symbol)[1:]:
            for other in (size + 1, size - 1, 1, 2 * size):
                if other not in (size, 0):
                    yield {symbol}, {place: other}


def _sizes(program: Program, guards: SizeGuards, changed: Mapping[Place, int]) -> list[int]:
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    return [changed.get(place, leaves[place[0]].shape[place[1]]) for place in guards.places]
