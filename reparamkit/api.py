"""The public calls: `fold` and `inspect`, and what they return.

    capture ──▶ fold ──▶ verify ──▶ lower

Each step lives in a room of its own; here they only follow each other. What cannot be captured as a whole
is folded part by part (`reparamkit.parts`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.export import capture, evaluating, run_example
from reparamkit.capture.program import Program
from reparamkit.capture.source import Source
from reparamkit.errors import CannotCapture, NotEquivalent, UnusableInput
from reparamkit.folding.census import census
from reparamkit.folding.findings import Fold, Refusal, short
from reparamkit.folding.rewrite import Outcome, fold_program
from reparamkit.inputs import Args, Kwargs, map_tensors, normalise_inputs, tensor_leaves
from reparamkit.lower import Saved, check_suffix
from reparamkit.lower import save as lower_save
from reparamkit.lower.exported import axis_names, export_program
from reparamkit.parts import Part, Parts, SteadyRunner, assemble, fold_parts, other_sizes, refused_calls
from reparamkit.untouched import random_state_kept
from reparamkit.verify import Equivalence, Reference, inputs_accepted_by
from reparamkit.verify.oracle import private_copy
from reparamkit.weights import non_finite

Model = nn.Module | ExportedProgram | Source


@dataclass(frozen=True)
class Inspection:
    """What would fold and what would not.

    Attributes:
        folds: every region that becomes one layer, in the order of the network.
        refusals: every operator that stays although it might have been expected to fold, and why.
        before, after: operator -> number of calls.
        sizes: which sizes of the input may vary, in words.
        notes: what else the caller should know.
        undone: the folds that failed their own check in float64 and were taken back. There should be none:
            each is an error of reparamkit that the check has caught.
        parts: of a network that cannot be captured as a whole, the submodules that were taken instead;
            `before` and `after` then count the operators of the captured ones.
    """

    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    before: dict[str, int]
    after: dict[str, int]
    sizes: str
    notes: tuple[str, ...]
    undone: tuple[Refusal, ...]
    parts: tuple[Part, ...]


@dataclass
class Folded:
    """A folded network.

    Attributes:
        module: the folded `nn.Module`, called as the original was. Every folded layer is an `nn.Conv*d`,
            `nn.ConvTranspose*d` or `nn.Linear` with a bias at the path of the module that owned it. With
            `parts`, a copy of the original in which each folded part runs a folded graph, its child `folded`.
        folds, refusals, before, after, sizes, notes, undone, parts: as in `Inspection`.
        equivalence: the verdict on the whole network; None with `verify=False`.
        saved: what `save` has written.
    """

    module: nn.Module
    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    before: dict[str, int]
    after: dict[str, int]
    sizes: str
    notes: tuple[str, ...]
    undone: tuple[Refusal, ...]
    parts: tuple[Part, ...]
    equivalence: Equivalence | None
    _original: nn.Module | ExportedProgram
    _program: Program | CannotCapture
    _inputs: tuple[tuple[Any, ...], dict[str, Any]]
    _reference: Reference | None = None
    _exported: ExportedProgram | None = None
    saved: list[Saved] = field(default_factory=list)

    def save(self, *paths: str | Path) -> list[Saved]:
        """Write the folded network to files, each in the format that its suffix names (.onnx, .pt2, .pt).

        A `.pt` is the whole module, pickled; it is the only format for a network that was folded in parts.

        The files appear under their names only after each was read back, run and found equivalent to the
        original: all of them, or none.

        Raises:
            UnusableInput: an unknown suffix, a missing folder, a full disk; an old file there is untouched.
            CannotCapture: an exported format for a network that cannot be exported as a whole.
            MissingExtra: a package for that format is not installed.
            NotEquivalent: the file does not compute what the original does; nothing was written.
        """
        done: list[Saved] = []
        if isinstance(self._program, CannotCapture):
            for path in paths:
                _check_is_module_file(Path(path), self._program)

        def save_from(i: int) -> None:
            """Each file waits under another name until all behind it have passed."""
            if i < len(paths):
                following = partial(save_from, i + 1)
                reference = self._get_reference()
                made = self.module if Path(paths[i]).suffix == ".pt" else self._export
                done.append(lower_save(made, paths[i], reference, before_it_appears=following))

        save_from(0)
        done.reverse()
        self.saved += done
        return done

    def _get_reference(self) -> Reference:
        if self._reference is None:
            if isinstance(self._program, Program):
                self._reference = Reference(self._original, *self._inputs)
            else:
                assert isinstance(self._original, nn.Module)
                self._reference = Reference(SteadyRunner(self._original), *self._inputs)
                if any(part.folded and part.sizes != "fixed sizes" for part in self.parts):
                    self._reference.widen(*other_sizes(self.module, *self._inputs))
                return self._reference
            if self._program.axes:
                names = axis_names(self._program.exported)
                self._reference.widen(
                    {i: {a: names[s] for a, s in axes.items()} for i, axes in self._program.axes.items()},
                    {names[s]: bounds for s, bounds in self._program.ranges.items()},
                    inputs_accepted_by(self._program.exported),
                )
        return self._reference

    def _export(self) -> ExportedProgram:
        """The folded module as an exported program, with the sizes free that were free at capture."""
        if self._exported is None:
            assert isinstance(self._program, Program)
            args, kwargs = _with_sizes_to_free(self._program)
            shapes = _auto_shapes(self._program)
            try:
                self._exported = export_program(self.module, args, kwargs, shapes)
            except CannotCapture:
                if shapes is None:
                    raise
                args, kwargs = self._inputs
                self._exported = export_program(self.module, args, kwargs)
                self.notes = (*self.notes, "the folded module could be exported with fixed sizes only")
        return self._exported

    def _judge(self) -> Equivalence:
        return self._get_reference().judge(self.module)


@random_state_kept()
def fold(
    model: Model, example_inputs: Any = None, dynamic: Any = "auto", verify: bool = True, **options: Any
) -> Folded:
    """Fold every parallel branch, batch norm and scale that is exactly foldable and pays; prove the result.

    Args:
        model: an `nn.Module` (never changed), an `ExportedProgram`, or what `load` returned.
        example_inputs: a tensor (N, C, *spatial), a tuple of positional or a dict of keyword arguments, as
            the model's forward takes them. May be left out where the model brings its own.
        dynamic: "auto" keeps batch and spatial sizes free as far as the model allows, "batch" the batch size,
            False none; or the `dynamic_shapes` of torch.export.
        verify: compare the whole folded network with the original's float64 run (the proof of each
            single fold in float64 is always done).
        options: `seconds`, the time limit of each attempt to capture with free sizes (default 60).

    Raises:
        UnusableInput: no inputs, inputs that the model rejects, weights that are not finite numbers.
        CannotCapture: torch.export cannot turn the model into one graph, nor any part that it calls.
        NotEquivalent: the folded network is not the same function (`error.equivalence` has the numbers).
    """
    original, inputs, notes = _prepared(model, example_inputs)
    try:
        program = capture(original, *inputs, dynamic=dynamic, **options)
    except CannotCapture as error:
        parts = _parts_of(original, inputs, error, dynamic, **options)
        folded = _assembled(parts, original, inputs, error, notes)
        while verify:
            folded.equivalence, reference = folded._judge(), folded._reference
            if folded.equivalence.passed or not parts.keep(refused_calls(folded.module)):
                break
            folded = _assembled(parts, original, inputs, error, notes)
            folded._reference = reference
    else:
        before = census(program.graph)
        outcome = fold_program(program)
        findings = _findings(program, outcome, before, notes)
        folded = Folded(
            module=outcome.module,
            equivalence=None,
            _original=original,
            _program=program,
            _inputs=inputs,
            **vars(findings),
        )
    if not verify:
        _check_inputs(folded._program, original, inputs)
        return folded
    folded.equivalence = folded.equivalence or folded._judge()
    if not folded.equivalence.passed:
        raise NotEquivalent(f"the folded network is {folded.equivalence.summary()}", folded.equivalence)
    return folded


@random_state_kept()
def inspect(model: Model, example_inputs: Any = None, dynamic: Any = "auto", **options: Any) -> Inspection:
    """The findings of `fold`, each fold proven in float64, with nothing changed and nothing to keep.

    Arguments and errors as for `fold`.
    """
    original, inputs, notes = _prepared(model, example_inputs)
    try:
        program = capture(original, *inputs, dynamic=dynamic, **options)
    except CannotCapture as error:
        return _findings_in(_parts_of(original, inputs, error, dynamic, **options), notes)
    _check_inputs(program, original, inputs)
    before = census(program.graph)
    return _findings(program, fold_program(program), before, notes)


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
        model = model.model
    if not isinstance(model, nn.Module | ExportedProgram):
        raise UnusableInput(
            f"a {type(model).__name__} is not a model: give an nn.Module, an ExportedProgram, "
            "or what reparamkit.load returned"
        )
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
    program: Program | CannotCapture, original: nn.Module | ExportedProgram, inputs: tuple[Args, Kwargs]
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
    return fold_parts(original, *inputs, error, dynamic=dynamic, **options)


def _assembled(
    parts: Parts,
    original: nn.Module | ExportedProgram,
    inputs: tuple[Args, Kwargs],
    error: CannotCapture,
    notes: list[str],
) -> Folded:
    assert isinstance(original, nn.Module)
    return Folded(
        module=assemble(private_copy(original), parts.taken),
        equivalence=None,
        _original=original,
        _program=error,
        _inputs=inputs,
        **vars(_findings_in(parts, notes)),
    )


def _findings_in(found: Parts, notes: list[str]) -> Inspection:
    return Inspection(
        folds=tuple(found.folds),
        refusals=tuple(found.refusals),
        before=dict(found.before.most_common()),
        after=dict(found.after.most_common()),
        sizes=found.sizes,
        notes=(*notes, *found.notes),
        undone=tuple(found.undone),
        parts=tuple(found.parts),
    )


def _check_is_module_file(path: Path, why: CannotCapture) -> None:
    check_suffix(path)
    if path.suffix != ".pt":
        raise CannotCapture(
            f"cannot write {path}: the network as a whole cannot be exported: {why.reason}. What was folded "
            "are parts of it, inside a copy of the module, which can be saved whole under the suffix .pt: "
            f"{path.with_suffix('.pt')}",
            why.reason,
        )


def require_none_undone(found: Folded | Inspection) -> None:
    """Raise `NotEquivalent`, naming it, if a fold failed its own check, although it was taken back."""
    if found.undone:
        count = len(found.undone)
        named = "; ".join(
            f"{u.where or '(the network)'}: {short(u.operator)} {u.node!r}: {u.reason}" for u in found.undone
        )
        own = "fold failed its own check and was" if count == 1 else "folds failed their own check and were"
        raise NotEquivalent(f"{count} {own} taken back: {named}")


def _with_sizes_to_free(program: Program) -> tuple[Args, Kwargs]:
    """The program's example with two of whatever is free and one: torch.export would fix a size of one."""

    def widened(index: int, tensor: torch.Tensor) -> torch.Tensor:
        for axis in program.axes.get(index, {}):
            if tensor.shape[axis] == 1:
                tensor = torch.cat([tensor, tensor], axis)
        return tensor

    return map_tensors(widened, program.args, program.kwargs)


def _auto_shapes(program: Program) -> Any:
    """`dynamic_shapes` that free the axes of the program and no others."""
    if not program.axes:
        return None
    index = -1

    def of(leaf: Any) -> Any:
        nonlocal index
        if not isinstance(leaf, torch.Tensor):
            return None
        index += 1
        return dict.fromkeys(program.axes.get(index, {}), Dim.AUTO) or None

    args = tuple(pytree.tree_map(of, a) for a in program.args)
    kwargs = {name: pytree.tree_map(of, value) for name, value in program.kwargs.items()}
    return kwargs if kwargs and not args else (*args, *kwargs.values())
