"""Maps at every position by itself, between moves that undo each other, without the moves.

    Q ∘ A ∘ P = A'        Q (A P x + B R y) = A' x + B' y        where Q ∘ P and Q ∘ R leave all in its place

    x ─▶ view (-1, k) ─▶ addmm ─▶ view (b, n, l)          x ─▶ linear

So a layer that is spelt so is one with the layers beside it; without a map between the moves, Q's result is
x. Where every axis but the channels' goes, a layout says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reparamkit.algebra import AffineMap, Geometry, Numbers, Scalar, affine, geometry
from reparamkit.algebra.layout import Digit, Layout
from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.engine.laws.chains import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Meaning, Move, Term, Value

_LONGEST = 16  # steps between the two moves; every move looks up its chain, and networks may be long
_MOST = 4  # summands

Step = Move | Term
"""What makes one value from another: a move, or a map at every position by itself."""


@dataclass(frozen=True)
class _Sum:
    """A value as a sum of maps of others, without the values `covers` between."""

    terms: tuple[Term, ...]
    covers: frozenset[int]


def maps_between_moves(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]:
    """The maps alone, for the last of the moves."""
    move = definition.meaning
    if not isinstance(move, Move) or move.cuts:
        return ()
    total = _undone(graph, definition.value, move.value, (move,))
    if total is None:
        return ()
    first, *others = total.terms
    if not others and not _is_identity(first) and per_channel(Affine((first,))) is not None:
        return ()  # `map_down_through_move` says as much
    return (Alternative(first, tuple(sorted(total.covers)), tuple(others)),)


def _undone(graph: ValueGraph, result: Value, value: Value, steps: tuple[Step, ...]) -> _Sum | None:
    """The result, which `steps` make of a value, as maps of what lies further up in the same places."""
    term = _in_place(value, steps, result)
    if term is not None:
        return _Sum((term,), frozenset())
    if len(steps) > _LONGEST:
        return None
    meaning = graph[value.id].meaning
    if isinstance(meaning, Move) and not meaning.cuts:
        above = _undone(graph, result, meaning.value, (meaning, *steps))
        return None if above is None else _Sum(above.terms, above.covers | {value.id})
    total = _Sum((), frozenset((value.id,)))
    for number, term in enumerate(_pointwise(meaning)):
        behind = steps if number == 0 else tuple(_without_shift(step) for step in steps)
        above = _undone(graph, result, term.value, (term, *behind))
        if above is None or len(total.terms) + len(above.terms) > _MOST:
            return None
        total = _Sum(total.terms + above.terms, total.covers | above.covers)
    return total if total.terms else None


def _pointwise(meaning: Meaning | None) -> tuple[Term, ...]:
    """The maps that a value is the sum of, if all are at every position by itself."""
    terms = meaning.terms if isinstance(meaning, Affine) else ()
    if all(isinstance(p.structure, Scalar) or _is_pointwise(p) for p in terms):
        return terms
    return ()


def _is_pointwise(term: Term) -> bool:
    looks_up = not term.value.dtype.is_floating_point
    return isinstance(term.structure, Geometry) and term.structure.pointwise and not looks_up


def _is_identity(term: Term) -> bool:
    return isinstance(term.structure, Scalar) and term.structure.identity


def _without_shift(step: Step) -> Step:
    """The linear part, for what is added to a sum that has the shift already."""
    if isinstance(step, Move) or not step.structure.has_bias:
        return step
    structure = replace(step.structure, has_bias=False)
    return replace(step, structure=structure, load=lambda: affine.linear_part(step.load()))


def _in_place(value: Value, steps: tuple[Step, ...], result: Value) -> Term | None:
    """The maps among the steps as one of the value, if the moves leave everything in its place; else None."""
    if value.ndim != result.ndim:
        return None
    differing = [axis for axis in range(value.ndim) if value.sizes[axis] != result.sizes[axis]]
    mixing = [step for step in steps if isinstance(step, Term) and isinstance(step.structure, Geometry)]
    candidates = [None] if not mixing else differing or range(max(value.ndim - 4, 0), value.ndim)
    for axis in candidates if len(differing) <= bool(mixing) else ():
        if _stays(value, steps, result, axis):
            return _joined(value, steps, axis)
    return None


def _stays(value: Value, steps: tuple[Step, ...], result: Value, channels: int | None) -> bool:
    """Whether every axis of the value is where it was, with maps along `channels` on the way."""
    axes = [axis for axis in range(value.ndim) if axis == channels or value.sizes[axis] != 1]
    layouts: dict[int, Layout | None] = {axis: Layout.along(value.sizes, axis) for axis in axes}
    for step in steps:
        if isinstance(step, Term) and isinstance(step.structure, Scalar):
            continue
        for axis, layout in layouts.items():
            if layout is None:
                return False
            layouts[axis] = (
                step.carry(layout) if isinstance(step, Move) else _past(step, layout, axis == channels)
            )
    wanted = {axis: Layout.along(result.sizes, axis) for axis in axes}
    return layouts == wanted


def _past(term: Term, layout: Layout, along: bool) -> Layout | None:
    """The layout behind a map, of the axis that it acts `along` or of another one."""
    structure = term.structure
    assert isinstance(structure, Geometry)
    axis = term.value.ndim - 1 - structure.dims
    if along:
        if layout.channel_axis != axis or term.value.sizes[axis] != structure.inputs:
            return None
        return Layout.along((*layout.sizes[:axis], structure.outputs, *layout.sizes[axis + 1 :]), axis)
    outputs = (Digit(structure.outputs),) if structure.outputs > 1 else ()
    if not layout.is_closed([axis]):
        return None
    return replace(layout, axes=(*layout.axes[:axis], outputs, *layout.axes[axis + 1 :]))


def _joined(value: Value, steps: tuple[Step, ...], axis: int | None) -> Term | None:
    """The maps one behind the other, along an axis of the value."""
    dims = 0 if axis is None else value.ndim - 1 - axis
    if dims and value.ndim != dims + 2:
        return None
    terms = [_along(step, dims) for step in steps if isinstance(step, Term)][::-1]
    structure = composed_structure(terms)
    if structure is None:
        return None
    load: Callable[[], Numbers] = lambda: composed_numbers(terms)  # noqa: E731
    return Term(value, structure, load)


def _along(term: Term, dims: int) -> Term:
    """A map at every position by itself, of a tensor with `dims` axes behind the channels."""
    old = term.structure
    if not isinstance(old, Geometry) or old.dims == dims:
        return term
    structure = geometry.pointwise(old.inputs, old.outputs, old.groups, dims, has_bias=old.has_bias)

    def load() -> Numbers:
        numbers = term.load()
        assert isinstance(numbers, AffineMap)
        kernel = numbers.kernel.reshape(*numbers.kernel.shape[:2], *structure.window)
        return AffineMap(structure, kernel, numbers.bias)

    return replace(term, structure=structure, load=load)
