"""Files that cannot refuse a size, and what must not be free in them.

A graph was captured under assumptions on the sizes of its inputs ("height <= 10": the network branches
there). A folded module checks them whenever it is called, and so does a `.pt2`. An ONNX file or a Core ML
package cannot: where an axis is free, it answers every size. So the sizes at which an assumption breaks are
tried: where the network itself answers, and otherwise than the graph does, the axis must not be free in such
a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from reparamkit.capture.agreement import outputs_alike
from reparamkit.capture.conditions import Place
from reparamkit.capture.program import Program
from reparamkit.capture.sizes import SizeGuards
from reparamkit.inputs import resized, tensor_leaves
from reparamkit.quiet import quiet
from reparamkit.untouched import call_untouched

_TRIED = 4  # sizes for each symbol
_LEAST = 64  # sizes up to this one are looked at, or up to twice the example's


def settled_symbols(program: Program, original: nn.Module, folded: nn.Module) -> dict[str, str]:
    """Symbol of a free axis -> why it must not be free in a file that cannot refuse a size."""
    settled: dict[str, str] = {}
    if program.guards is None or program.writes or not isinstance(folded, fx.GraphModule):
        return settled
    graph = _Unguarded(folded)
    for symbol, size, sizes, broken in _beyond(program, program.guards):
        if symbol in settled:
            continue
        args, kwargs = resized(program.args, program.kwargs, sizes)
        with torch.no_grad(), quiet():
            try:
                expected = call_untouched(original, args, kwargs)
            except Exception:  # whatever the network raises for a size that it does not take itself
                continue
            try:
                found = graph.run(*pytree.tree_leaves((args, kwargs)), enable_io_processing=False)
            except Exception:  # then the file does not answer either
                continue
        if not outputs_alike(found, expected):
            settled[symbol] = (
                f"at a size of {size} the network does something else than what was captured, which assumes "
                f"{program.guards.spoken(broken)}"
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


def _beyond(program: Program, guards: SizeGuards) -> Iterator[tuple[str, int, dict[Place, int], str]]:
    """For each symbol the sizes nearest to the example's that break an assumption, and which they break."""
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    example = [leaves[index].shape[axis] for index, axis in guards.places]
    places: dict[str, list[Place]] = {}
    for index, axes in program.axes.items():
        for axis, symbol in axes.items():
            places.setdefault(symbol, []).append((index, axis))
    for symbol, mine in places.items():
        index, axis = mine[0]
        size = leaves[index].shape[axis]
        told: set[str] = set()
        tried = 0
        for other in sorted(range(1, max(_LEAST, 2 * size) + 1), key=lambda n: abs(n - size)):
            changed = dict.fromkeys(mine, other)
            sizes = zip(guards.places, example, strict=True)
            broken = guards.broken([changed.get(place, old) for place, old in sizes])
            if tried < _TRIED and not told.issuperset(broken):
                tried += 1
                told.update(broken)
                yield symbol, other, changed, broken[0]
