"""The public calls: `fold` and `inspect`, and what they return.

    capture ──▶ fold ──▶ verify ──▶ lower

Each step lives in a room of its own; here they only follow each other. What cannot be captured as a whole
is folded part by part (`reparamkit.submodules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.agreement import differs_on_example
from reparamkit.capture.export import capture, evaluating, run_example
from reparamkit.capture.program import Captured, InParts, Program
from reparamkit.compare.inputs.sizes import FreeSizes
from reparamkit.compare.kept_outputs import keeping, named_arguments, output_names
from reparamkit.compare.network import Network
from reparamkit.compare.per_call import SteadyRunner, proposed_sizes
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.compare.verdict import Equivalence
from reparamkit.engine.findings import short
from reparamkit.errors import CannotCapture, NotEquivalent, UnusableInput
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import Outcome, fold_program
from reparamkit.loading.finite import non_finite
from reparamkit.loading.source import Source
from reparamkit.loading.wrappers import unwrapped, usable_inputs
from reparamkit.lower.lowering import free_sizes_of
from reparamkit.result import Folded, Inspection
from reparamkit.runners.torch import TorchRunner, program_runner
from reparamkit.submodules.replacement import assemble, refused_calls
from reparamkit.submodules.search import Parts, fold_parts
from reparamkit.support.copies import private_copy
from reparamkit.support.inputs import Args, Kwargs, normalise_inputs, tensor_leaves
from reparamkit.support.isolation import attributes_kept, random_state_kept
from reparamkit.support.output_names import chosen
from reparamkit.support.progress import phase
from reparamkit.support.surroundings import undisturbed

Model = nn.Module | ExportedProgram | Source
Outputs = int | str | Sequence[str] | None


@undisturbed()
@random_state_kept()
def fold(
    model: Model,
    example_inputs: Any = None,
    dynamic: Any = "auto",
    verify: bool = True,
    merge_siblings: bool = False,
    outputs: Outputs = None,
    **options: Any,
) -> Folded:
    """Fold every parallel branch, batch norm and scale that is exactly foldable and pays; prove the result.

    Args:
        model: an `nn.Module` (never changed), an `ExportedProgram`, or what `load` returned.
        example_inputs: a tensor (N, C, *spatial), a tuple of positional or a dict of keyword arguments, as
            the model's forward takes them. May be left out where the model brings its own.
        dynamic: "auto" keeps batch and spatial sizes free as far as the model allows, "batch" the batch size,
            False none; or the `dynamic_shapes` of torch.export.
        verify: compare the whole folded network with the original's float64 run (the proof of each
            single fold in float64 is always done, and the captured graph is always held against the
            original on the example: where the two differ, the comparison is made all the same).
        merge_siblings: also make one wider layer, and a split, of layers that read the same value.
        outputs: which outputs to keep, where not all: how many of the first, or their names ("scores", "0",
            "map.1" inside "map", or "map" for all inside). The folded network returns them in a dict, by
            name, and computes nothing that only the others needed; it is compared on those that are kept.
        options: `seconds`, the time limit of each attempt to capture with free sizes (default 60).

    Raises:
        UnusableInput: no inputs, inputs that the model rejects, weights that are not finite numbers.
        CannotCapture: torch.export cannot turn the model into one graph, nor any part that it calls.
        NotEquivalent: the folded network is not the same function (`error.equivalence` has the numbers).

    Where it cannot be told whether it is the same (nothing depends on the input, the network is random), that
    is what `equivalence` of the result says, and `save` refuses to write it.
    """
    original, inputs, notes = _prepared(model, example_inputs)
    original, dropped = _keeping(original, inputs, outputs)
    with attributes_kept(original):
        options |= {"dynamic": dynamic, "merge_siblings": merge_siblings}
        return _fold(original, inputs, notes, dropped, verify=verify, **options)


def _fold(
    original: nn.Module | ExportedProgram,
    inputs: tuple[Args, Kwargs],
    notes: list[str],
    dropped: Dropped | None,
    *,
    verify: bool,
    dynamic: Any,
    merge_siblings: bool,
    **options: Any,
) -> Folded:
    try:
        with phase("capturing"):
            program = capture(original, *inputs, dynamic=dynamic, **options)
    except CannotCapture as error:
        _require_whole(dropped, error)
        parts = _parts_of(original, inputs, error, dynamic, merge_siblings=merge_siblings, **options)
        folded = _folded_in_parts(parts, original, inputs, error, notes, verify=verify)
    else:
        before = census(program.graph)
        notes += dropped.told(before) if dropped is not None else []
        if not all(tensor.is_floating_point() for _, tensor in tensor_leaves(*inputs)):
            _check_inputs(program, original, inputs)  # no capture looks at numbers, which may lead nowhere
        # Unverified, a fold stands for what was captured, and that need not be the network.
        verify = verify or (
            isinstance(original, nn.Module) and differs_on_example(program, original, *inputs)
        )
        with phase("folding"):
            outcome = fold_program(program.copy(), merge_siblings=merge_siblings, example=inputs)
        network = _network(outcome.module, inputs, free_sizes_of(program), _opened(original))
        findings = vars(_findings(program, outcome, before, notes))
        folded = Folded(
            outcome.module,
            **findings,
            equivalence=None,
            network=network,
            captured=program,
            merge_siblings=merge_siblings,
        )
    if not verify:
        _check_inputs(folded.captured, original, inputs)
        return folded
    folded.equivalence = folded.equivalence or _verdict_on(folded.network)
    if folded.equivalence.differs:
        raise NotEquivalent(
            f"the folded network is {folded.equivalence.summary()}{_otherwise(folded.captured)}",
            folded.equivalence,
        )
    return folded


def _folded_in_parts(
    parts: Parts,
    original: nn.Module | ExportedProgram,
    inputs: tuple[Args, Kwargs],
    error: CannotCapture,
    notes: list[str],
    *,
    verify: bool,
) -> Folded:
    """A copy of the network with its parts folded, without those that refuse what it hands them."""
    assert isinstance(original, nn.Module)
    opened = Network(type(original).__name__, SteadyRunner(original))
    while True:
        module = assemble(private_copy(original), parts.taken)
        free = None
        if any(part.folded and part.sizes != "fixed sizes" for part in parts.parts):
            free = proposed_sizes(module, *inputs)
        network = _network(module, inputs, free, opened)
        findings = vars(_findings_in(parts, notes))
        folded = Folded(module, **findings, equivalence=None, network=network, captured=InParts(error))
        if not verify:
            return folded
        folded.equivalence = _verdict_on(network)
        if not folded.equivalence.differs or not parts.keep(refused_calls(module)):
            return folded


def _network(
    module: nn.Module, inputs: tuple[Args, Kwargs], free: FreeSizes | None, original: Network
) -> Network:
    """A folded network, and what it must agree with."""
    return Network(original.label, TorchRunner(module), example=inputs, free=free, original=original)


def _opened(original: nn.Module | ExportedProgram) -> Network:
    if isinstance(original, nn.Module):
        return Network(type(original).__name__, TorchRunner(original))
    return Network("ExportedProgram", program_runner(original), program=original)


def _verdict_on(network: Network) -> Equivalence:
    """Whether a folded network computes what its original does."""
    with phase("verifying"):
        return judge_candidate(network.reference, network.runner, EXCHANGEABLE)


@undisturbed()
@random_state_kept()
def inspect(
    model: Model,
    example_inputs: Any = None,
    dynamic: Any = "auto",
    merge_siblings: bool = False,
    outputs: Outputs = None,
    **options: Any,
) -> Inspection:
    """The findings of `fold`, each fold proven in float64, with nothing changed and nothing to keep.

    Arguments and errors as for `fold`.
    """
    original, inputs, notes = _prepared(model, example_inputs)
    original, dropped = _keeping(original, inputs, outputs)
    with attributes_kept(original):
        try:
            with phase("capturing"):
                program = capture(original, *inputs, dynamic=dynamic, **options)
        except CannotCapture as error:
            _require_whole(dropped, error)
            parts = _parts_of(original, inputs, error, dynamic, merge_siblings=merge_siblings, **options)
            return _findings_in(parts, notes)
        _check_inputs(program, original, inputs)
        before = census(program.graph)
        notes += dropped.told(before) if dropped is not None else []
        with phase("folding"):
            outcome = fold_program(program, merge_siblings=merge_siblings, example=inputs)
        return _findings(program, outcome, before, notes)


@undisturbed()
@random_state_kept()
def names_of(model: Model, example_inputs: Any, outputs: Outputs = None) -> tuple[list[str], list[str]]:
    """What a network calls its inputs and its outputs (those that are kept); it runs, and is not captured.

    Arguments and errors as for `fold`. An input that is given by its place is called as the forward calls it.
    """
    original, inputs, _ = _prepared(model, example_inputs)
    names = _outputs_of(original, inputs)
    return named_arguments(original, *inputs), names if outputs is None else chosen(outputs, names)


def _keeping(
    original: nn.Module | ExportedProgram, inputs: tuple[Args, Kwargs], outputs: Outputs
) -> tuple[nn.Module | ExportedProgram, Dropped | None]:
    """The network with the outputs that are kept, and what is dropped; as it is where that is nothing."""
    if outputs is None:
        return original, None
    names = _outputs_of(original, inputs)
    kept = chosen(outputs, names)
    if kept == names:
        return original, None
    return keeping(original, kept), Dropped(original, inputs, [name for name in names if name not in kept])


def _outputs_of(original: nn.Module | ExportedProgram, inputs: tuple[Args, Kwargs]) -> list[str]:
    if isinstance(original, nn.Module):
        with attributes_kept(original):
            run_example(original, *inputs)
            return output_names(original, *inputs)
    return output_names(original, *inputs)


@dataclass(frozen=True)
class Dropped:
    """The outputs that a network is to lose, and the network that has them."""

    network: nn.Module | ExportedProgram
    inputs: tuple[Args, Kwargs]
    names: list[str]

    def told(self, before: dict[str, int]) -> list[str]:
        """For the report: what was dropped, and the operators that the rest does not need."""
        said = f"outputs dropped: {', '.join(self.names)}"
        try:
            with attributes_kept(self.network):
                whole = census(capture(self.network, *self.inputs, dynamic=False).graph)
        except CannotCapture:
            return [said]
        gone = {name: count - before.get(name, 0) for name, count in whole.items()}
        listed = ", ".join(f"{count} {name}" for name, count in gone.items() if count > 0)
        return [f"{said}; with them went {listed or 'no operator'}"]


def _require_whole(dropped: Dropped | None, error: CannotCapture) -> None:
    """Raise where outputs were to be dropped of a network that can be folded in parts only."""
    if dropped is not None:
        raise CannotCapture(
            "outputs can be dropped of a network that is captured as a whole, and this one is not: "
            f"{error.reason}",
            error.reason,
        ) from error


def _prepared(
    model: Model, example_inputs: Any
) -> tuple[nn.Module | ExportedProgram, tuple[Args, Kwargs], list[str]]:
    """The network in eval mode, its inputs, and notes."""
    notes: list[str] = []
    inputs = None if example_inputs is None else normalise_inputs(example_inputs)
    if isinstance(model, Source):
        notes += model.notes
        if inputs is None and model.example_inputs is not None:
            inputs = model.example_inputs, model.example_kwargs
            notes += [model.inferred_note] if model.inferred_note else []
        model = model.model
    if not isinstance(model, nn.Module | ExportedProgram):
        raise UnusableInput(
            f"a {type(model).__name__} is not a model: give an nn.Module, an ExportedProgram, "
            "or what reparamkit.load returned"
        )
    if isinstance(model, nn.Module):
        model, wrapped = unwrapped(model)
        notes += wrapped
    if inputs is not None:
        inputs = usable_inputs(*inputs)
    broken = non_finite(model)
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise UnusableInput(
            f"the model has NaN or infinite weights: {', '.join(broken[:5])}{more}; "
            "nothing computed from them could be compared"
        )
    if isinstance(model, nn.Module):
        model, training = evaluating(model)
        notes += training
    elif inputs is None and model.example_inputs is not None:
        args, kwargs = model.example_inputs
        inputs = tuple(args), dict(kwargs)
    return model, inputs or normalise_inputs(None), notes


def _check_inputs(
    program: Captured, original: nn.Module | ExportedProgram, inputs: tuple[Args, Kwargs]
) -> None:
    """Run the original once: torch.export lets some inputs pass that the model itself rejects."""
    if isinstance(original, nn.Module):
        run_example(original, *inputs)
        return
    assert isinstance(program, Program)
    try:
        if program.guards is not None:
            program.guards(*(tensor for _, tensor in tensor_leaves(*inputs)))
    except (ValueError, IndexError) as error:
        raise UnusableInput(f"the model rejects the example inputs: {error}") from error


def _otherwise(program: Captured) -> str:
    if not isinstance(program, Program) or not program.captured_otherwise:
        return ""
    return (
        ". When torch.export captures it, the network runs other operators than when it is called: "
        f"{program.captured_otherwise}"
    )


def _findings(program: Program, outcome: Outcome, before: dict[str, int], notes: list[str]) -> Inspection:
    after = census(outcome.module.graph, dict(outcome.module.named_modules()))
    return Inspection(
        folds=outcome.folds,
        refusals=outcome.refusals,
        before=before,
        after=after,
        sizes=program.sizes,
        notes=(*notes, *program.notes),
        undone=outcome.undone,
        parts=(),
        outlines=outcome.outlines,
    )


def _parts_of(
    original: nn.Module | ExportedProgram,
    inputs: tuple[Args, Kwargs],
    error: CannotCapture,
    dynamic: Any,
    **options: Any,
) -> Parts:
    if not isinstance(original, nn.Module):
        raise error
    with phase("folding part by part"):
        return fold_parts(original, *inputs, error, dynamic=dynamic, **options)


def _findings_in(parts: Parts, notes: list[str]) -> Inspection:
    return Inspection(
        folds=tuple(parts.folds),
        refusals=tuple(parts.refusals),
        before=dict(parts.before.most_common()),
        after=dict(parts.after.most_common()),
        sizes=parts.sizes,
        notes=(*notes, *parts.notes),
        undone=tuple(parts.undone),
        parts=tuple(parts.parts),
        outlines=parts.outlines,
    )


def require_none_undone(result: Folded | Inspection) -> None:
    """Raise `NotEquivalent`, naming it, if a fold failed its own check, although it was taken back."""
    if result.undone:
        count = len(result.undone)
        named = "; ".join(
            f"{u.where or '(the network)'}: {short(u.operator)} {u.node!r}: {u.reason}" for u in result.undone
        )
        own = "fold failed its own check and was" if count == 1 else "folds failed their own check and were"
        raise NotEquivalent(f"{count} {own} taken back: {named}")
