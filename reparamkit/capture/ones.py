"""Sizes of one inside a network, which torch.export rules out whether or not they matter.

The symbolic solver takes every size that it cannot know for more than one, and writes that down as an
assumption ("height // 32 != 1"). A network that branches on such a size needs it; nearly all do not. So the
captured graph is run once at sizes where these assumptions break, next to the model: if both answer
alike, every assumption that broke there goes.
"""

from __future__ import annotations

from torch import nn

from reparamkit.capture.agreement import answers_alike
from reparamkit.capture.program import Program
from reparamkit.inputs import resized, tensor_leaves

_LARGEST = 512


def allow_ones(program: Program, model: nn.Module) -> None:
    """Drop the assumptions of the program that some size is not one, if the model shows them to be idle."""
    guards = program.guards
    if guards is None:
        return
    idle = [text for text in guards.assumptions if text.endswith(" != 1")]
    if not idle:
        return
    sizes, broken = _breaking(program, idle)
    if not sizes:
        return

    args, kwargs = resized(program.args, program.kwargs, sizes)
    if answers_alike(program, model, args, kwargs):
        program.guards = guards.without(broken)


def _breaking(program: Program, idle: list[str]) -> tuple[dict[tuple[int, int], int], list[str]]:
    """Sizes at which the last of these assumptions break, one for each symbol, and all that break there.

    No sizes, if any of those is more than the exclusion of a value.
    """
    guards = program.guards
    assert guards is not None
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    sizes = [leaves[index].shape[axis] for index, axis in guards.places]
    changed: dict[tuple[int, int], int] = {}
    same: dict[str, list[int]] = {}
    for i, (index, axis) in enumerate(guards.places):
        symbol = program.axes.get(index, {}).get(axis)
        if symbol is not None:
            same.setdefault(symbol, []).append(i)
    for text in reversed(idle):  # the deepest layers come last, and are the first to shrink to one
        for symbol, numbers in list(same.items()):
            tried = (n for n in range(1, _LARGEST) if not guards.holds([text], _with(sizes, numbers, n)))
            found = next(tried, None) if guards.holds([text], sizes) else None
            if found is not None:
                sizes = _with(sizes, numbers, found)
                changed |= {guards.places[i]: found for i in numbers}
                del same[symbol]
    broken = [text for text in guards.assumptions if not guards.holds([text], sizes)]
    telling = all(map(_excludes_ones, broken))
    return (changed, broken) if telling else ({}, [])


def _excludes_ones(text: str) -> bool:
    """Whether it is broken by a size of one, or by two sizes that are alike; a branch on a size says more."""
    if " != " in text or text.endswith(" > 1"):
        return True
    _, bounds, least = text.rpartition(" >= ")
    return bool(bounds) and (not least.isdigit() or int(least) <= 2)


def _with(sizes: list[int], numbers: list[int], size: int) -> list[int]:
    return [size if i in numbers else old for i, old in enumerate(sizes)]
