"""The public calls: `fold` and `inspect`, and what they return.

    capture ──▶ fold ──▶ verify ──▶ lower

Each step lives in a room of its own; here they only follow each other.
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
from reparamkit.folding.findings import Fold, Refusal
from reparamkit.folding.rewrite import Outcome, fold_program
from reparamkit.inputs import Args, Kwargs, map_tensors, normalise_inputs, tensor_leaves
from reparamkit.lower import Saved
from reparamkit.lower import save as lower_save
from reparamkit.lower.exported import axis_names, export_program
from reparamkit.verify import Equivalence, Reference, inputs_accepted_by
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
    """

    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    before: dict[str, int]
    after: dict[str, int]
    sizes: str
    notes: tuple[str, ...]


@dataclass
class Folded:
    """A folded network.

    Attributes:
        module: the folded `nn.Module`, called as the original was. Every folded layer is an `nn.Conv*d`,
            `nn.ConvTranspose*d` or `nn.Linear` with a bias at the path of the module that owned it.
        folds, refusals, before, after, sizes, notes: as in `Inspection`.
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
    equivalence: Equivalence | None
    _original: nn.Module | ExportedProgram
    _program: Program
    _inputs: tuple[tuple[Any, ...], dict[str, Any]]
    _reference: Reference | None = None
    _exported: ExportedProgram | None = None
    saved: list[Saved] = field(default_factory=list)

    def save(self, *paths: str | Path) -> list[Saved]:
        """Write the folded network to files, each in the format that its suffix names (.onnx, .pt2).

        The files appear under their names only after each was read back, run and found equivalent to the
        original: all of them, or none.

        Raises:
            UnusableInput: an unknown suffix, a missing folder, a full disk; an old file there is untouched.
            MissingExtra: a package for that format is not installed.
            NotEquivalent: the file does not compute what the original does; nothing was written.
        """
        done: list[Saved] = []

        def save_from(i: int) -> None:
            """Each file waits under another name until all behind it have passed."""
            if i < len(paths):
                following = partial(save_from, i + 1)
                reference = self._get_reference()
                done.append(lower_save(self._export, paths[i], reference, before_it_appears=following))

        save_from(0)
        done.reverse()
        self.saved += done
        return done

    def _get_reference(self) -> Reference:
        if self._reference is None:
            self._reference = Reference(self._original, *self._inputs)
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
        CannotCapture: torch.export cannot turn the model into one graph.
        NotEquivalent: the folded network is not the same function (`error.equivalence` has the numbers).
    """
    original, inputs, notes = _prepared(model, example_inputs)
    program = capture(original, *inputs, dynamic=dynamic, **options)
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
        _check_inputs(program, original, inputs)
    else:
        folded.equivalence = folded._judge()
        if not folded.equivalence.passed:
            raise NotEquivalent(f"the folded network is {folded.equivalence.summary()}", folded.equivalence)
    return folded


def inspect(model: Model, example_inputs: Any = None, dynamic: Any = "auto", **options: Any) -> Inspection:
    """The findings of `fold`, each fold proven in float64, with nothing changed and nothing to keep.

    Arguments and errors as for `fold`.
    """
    original, inputs, notes = _prepared(model, example_inputs)
    program = capture(original, *inputs, dynamic=dynamic, **options)
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
    program: Program, original: nn.Module | ExportedProgram, inputs: tuple[Args, Kwargs]
) -> None:
    """Run the original once: torch.export lets some inputs pass that the model itself rejects."""
    if isinstance(original, nn.Module):
        run_example(original, *inputs)
        return
    try:
        if program.guards is not None:
            program.guards(*(tensor for _, tensor in tensor_leaves(*inputs)))
    except (ValueError, IndexError) as error:
        raise UnusableInput(f"the model rejects the example inputs: {error}") from error


def _findings(program: Program, outcome: Outcome, before: dict[str, int], notes: list[str]) -> Inspection:
    after = census(outcome.module.graph, dict(outcome.module.named_modules()))
    return Inspection(outcome.folds, outcome.refusals, before, after, program.sizes, (*notes, *program.notes))


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
