"""Which assumptions of a capture the network itself shows to be idle; all others are checked at run time.

At each special point (`reparamkit.capture.special_sizes`) that breaks exclusions only, original and
captured graph run side by side (`reparamkit.capture.witness`). Where both compute the same expression, what
breaks there is shown not to matter; where they do not, or where the network cannot be watched, it is held.
A point that breaks nothing and is answered otherwise fixes the sizes in it to the example's. Assumptions
that no point showed stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.modes import other_modes
from reparamkit.capture.program import Program, program_of
from reparamkit.capture.size_conditions import Place
from reparamkit.capture.sizes import SizeGuards, guards_of, own_conditions, size_guards, user_inputs
from reparamkit.capture.special_sizes import (
    Point,
    is_exclusion,
    larger_point,
    ordinary_point,
    sizes_tried,
    special_points,
)
from reparamkit.capture.witness import Answer, Observation, Witness, can_be_watched
from reparamkit.support.garbage import on_one_thread
from reparamkit.support.inputs import Args, Kwargs, resized, tensor_leaves


@dataclass(frozen=True)
class _Tried:
    point: Point
    sizes: dict[Place, int]
    broken: frozenset[str]
    observation: Observation

    @property
    def differs(self) -> bool:
        return self.observation.answer in (Answer.OTHER, Answer.UNKNOWN)


def settle_by_observation(program: Program, model: nn.Module) -> None:
    """Hold what the network is seen to treat in its own way, drop what is shown idle, note other modes."""
    guards = program.guards
    if guards is None:
        return
    if not can_be_watched(program.exported):
        if program.axes:
            program.notes.append(
                "sizes of 0 and 1 are refused where others were assumed: the network has torch.cond or "
                "the like in it, and cannot be watched"
            )
        return
    witness = Witness(program.exported, model, program.args, program.kwargs)
    with on_one_thread():
        _settle(program, model, guards, witness)


def _settle(program: Program, model: nn.Module, guards: SizeGuards, witness: Witness) -> None:
    base = _ordinary(program, guards, witness)
    if base is None:
        why = witness.at({}).difference
        program.captured_otherwise = why or "the same operators on other values"
        if program.axes:
            why = f" ({why})" if why else ""
            program.notes.append(
                "sizes of 0 and 1 are refused where others were assumed: the network runs other operators "
                f"when it is captured than when it is called{why}, so that nothing can be shown of them"
            )
        _note_modes(program, model, witness, (program.args, program.kwargs))
        return
    program.witness = witness
    example = program.example_sizes()
    program.ordinary = resized(program.args, program.kwargs, program.places_of(_changed(base, example)))
    tried = list(_observed(program, guards, witness, base))
    same = [each for each in tried if each.observation.same]
    shown = frozenset[str]().union(*(each.broken for each in same))
    held: set[str] = set()
    program.differing = [each.point for each in tried if each.differs]
    for each in sorted((each for each in tried if each.differs), key=lambda each: len(each.broken)):
        if not each.broken:
            _fix(program, each)
        elif not each.broken & held:
            held |= (each.broken - shown) or each.broken
            program.notes.append(_told(program, each))
    assert program.guards is not None
    program.guards = program.guards.without(shown - held - guards.asked)
    # Not with a batch of one: of a matrix with one row, one memory layout is as good as another.
    _note_modes(program, model, witness, program.ordinary)


def without_idle_conditions(exported: ExportedProgram, model: nn.Module, args: Args, kwargs: Kwargs) -> None:
    """Take those conditions out of an exported program that its module shows to be idle.

    torch.export settles some of its own questions by conditions ("the batch is not 1"), which a module that
    takes such sizes does not have, and a file made of the program would.
    """
    conditions: list[str] = getattr(exported, "_guards_code", [])
    if not conditions or not can_be_watched(exported) or not _refuses_ones(exported, model, args, kwargs):
        return
    program = program_of(exported, args, kwargs)
    guards = program.guards
    if guards is None or not program.axes:
        return
    witness = Witness(exported, model, args, kwargs)
    base = _ordinary(program, guards, witness)
    if base is None:
        return
    tried = list(_observed(program, guards, witness, base))
    shown = frozenset[str]().union(*(each.broken for each in tried if each.observation.same))
    differing = frozenset[str]().union(*(each.broken for each in tried if each.differs))
    known = own_conditions(exported)
    conditions[:] = [text for text in conditions if known[text] not in shown - differing]


def _refuses_ones(exported: ExportedProgram, model: nn.Module, args: Args, kwargs: Kwargs) -> bool:
    """Whether the program's own conditions refuse some size of one that the module takes."""
    taken = guards_of(model)
    inputs = user_inputs(exported)
    conditions = size_guards(exported, inputs)
    leaves = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    free = [(i, a) for i, tensor in enumerate(leaves) for a in range(tensor.ndim)]
    groups = [[place] for place in free] + [[p for p in free if p[1] == 0], free]

    def accepts(guards: SizeGuards, group: list[Place]) -> bool:
        sizes = [1 if place in group else leaves[place[0]].shape[place[1]] for place in guards.places]
        return guards.accepts(sizes)

    return any(
        not accepts(conditions, group) and (taken is None or accepts(taken, group)) for group in groups
    )


def _ordinary(program: Program, guards: SizeGuards, witness: Witness) -> Point | None:
    """Ordinary sizes at which both compute the same; None where they do not even on the example."""
    example = program.example_sizes()

    def accepts(point: Point) -> bool:
        return guards.accepts(program.sizes_of(guards, {**example, **point}))

    points = [ordinary_point(example, _batch(program), accepts), example]
    if not accepts(example) and (larger := larger_point(example, _batch(program), accepts)):
        points.insert(0, larger)
    for point in points:
        if witness.at(program.places_of(_changed(point, example))).same:
            return point
    return None


def _changed(point: Point, example: Point) -> Point:
    return {symbol: size for symbol, size in point.items() if size != example[symbol]}


def _batch(program: Program) -> list[str]:
    return [symbol for symbol in program.example_sizes() if 0 in program.axes_of(symbol)]


def _note_modes(program: Program, model: nn.Module, witness: Witness, inputs: tuple[Args, Kwargs]) -> None:
    """Say in which modes the network computes something else; asked with these inputs."""
    device = next((tensor.device.type for tensor in (*model.parameters(), *model.buffers())), "cpu")
    differing = witness.differing_modes(*inputs, other_modes(device))
    if differing:
        where = "; ".join(
            f"{name} ({seen.difference})" if seen.difference else name for name, seen in differing.items()
        )
        program.notes.append(
            "the folded network stands for evaluation without gradients, on contiguous inputs, outside "
            f"autocast; the network itself runs other operators {where}"
        )


def _observed(program: Program, guards: SizeGuards, witness: Witness, base: Point) -> Iterator[_Tried]:
    example = program.example_sizes()
    exclusions = (frozenset(filter(is_exclusion, guards.assumptions)) | guards.synthetic) - guards.permanent
    numbers = {text: number for number, text in enumerate(guards.assumptions)}
    in_example = frozenset(guards.broken(program.sizes_of(guards, {})))
    if in_example and in_example <= exclusions:  # a size inside the network is one there
        yield _Tried({}, {}, in_example, witness.at({}))
    breaks = []
    for symbol, size in base.items():
        own = (guards.broken(program.sizes_of(guards, {**base, symbol: n})) for n in sizes_tried(size))
        breaks.append([frozenset(numbers[text] for text in broken if text in exclusions) for broken in own])
    recorded = frozenset(numbers[text] for text in exclusions - guards.synthetic)
    seen = [_changed(base, example)]
    for proposed in special_points(base, _batch(program), breaks, recorded):
        point = _changed({**base, **proposed}, example)
        if not point or point in seen:
            continue
        seen.append(point)
        sizes = program.sizes_of(guards, point)
        broken = frozenset(guards.broken(sizes))
        if broken <= exclusions:
            changed = program.places_of(point)
            yield _Tried(point, changed, broken, witness.at(changed))


def _fix(program: Program, each: _Tried) -> None:
    leaves = [tensor for _, tensor in tensor_leaves(program.args, program.kwargs)]
    assert program.guards is not None
    for symbol in each.point:
        for index, axis in program.places_with(symbol):
            program.guards = program.guards.holding((index, axis), leaves[index].shape[axis])
        program.hold(symbol, f"what it computes where {_sizes_in_words(program, each)}")


def _told(program: Program, each: _Tried) -> str:
    refused = f"inputs where {_sizes_in_words(program, each)} are refused"
    if each.observation.answer is Answer.UNKNOWN:
        return f"{refused}: what the network does there cannot be shown"
    why = f" ({each.observation.difference})" if each.observation.difference else ""
    return f"{refused}: there the network computes something else than what was captured{why}"


def _sizes_in_words(program: Program, each: _Tried) -> str:
    names = program.input_names
    return " and ".join(
        f"axis {axis} of {names[index]} is {size}"
        for symbol, size in each.point.items()
        for index, axis in program.places_with(symbol)[:1]
    )
