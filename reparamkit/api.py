"""The public calls: `fold` and `inspect`, and what they return.

    capture ──▶ fold ──▶ verify ──▶ lower

Each step lives in a room of its own; here they only follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.capture.source import Source
from reparamkit.errors import CannotCapture, NotEquivalent, UnusableInput
from reparamkit.folding.census import census
from reparamkit.folding.findings import Fold, Refusal
from reparamkit.folding.rewrite import Outcome, fold_program
from reparamkit.inputs import normalise_inputs
from reparamkit.lower import Saved
from reparamkit.lower import save as lower_save
from reparamkit.lower.exported import export_program
from reparamkit.verify import Equivalence, Reference
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
        module: the folded `nn.Module`, called as the original was. Every folded layer is an `nn.Conv*d` or
            `nn.Linear` with a bias at the path of the module that owned it.
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

        A file appears under its name only after it was read back, run and found equivalent to the original.

        Raises:
            UnusableInput: an unknown suffix, a missing folder, a full disk; an old file there is untouched.
            MissingExtra: a package for that format is not installed.
            NotEquivalent: the file does not compute what the original does; nothing was written.
        """
        done = []
        for path in paths:
            done.append(lower_save(self._export, path, self._get_reference()))
            self.saved.append(done[-1])
        return done

    def _get_reference(self) -> Reference:
        if self._reference is None:
            self._reference = Reference(self._original, *self._inputs)
        return self._reference

    def _export(self) -> ExportedProgram:
        """The folded module as an exported program, with the sizes free that were free at capture."""
        if self._exported is None:
            args, kwargs = self._program.args, self._program.kwargs
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
        reference = self._get_reference()
        reference.widen(self._program.axes, self._program.ranges)
        return reference.judge(self.module)


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
    original, inputs = _prepared(model, example_inputs)
    program = capture(original, *inputs, dynamic=dynamic, **options)
    before = census(program.graph)
    outcome = fold_program(program)
    findings = _findings(program, outcome, before, model)
    folded = Folded(
        module=outcome.module,
        equivalence=None,
        _original=original,
        _program=program,
        _inputs=inputs,
        **vars(findings),
    )
    if verify:
        folded.equivalence = folded._judge()
        if not folded.equivalence.passed:
            raise NotEquivalent(
                f"the folded network is not equivalent: {folded.equivalence.summary()}", folded.equivalence
            )
    return folded


def inspect(model: Model, example_inputs: Any = None, dynamic: Any = "auto", **options: Any) -> Inspection:
    """The findings of `fold`, each fold proven in float64, with nothing changed and nothing to keep.

    Arguments and errors as for `fold`.
    """
    original, inputs = _prepared(model, example_inputs)
    program = capture(original, *inputs, dynamic=dynamic, **options)
    before = census(program.graph)
    return _findings(program, fold_program(program), before, model)


def _prepared(
    model: Model, example_inputs: Any
) -> tuple[nn.Module | ExportedProgram, tuple[tuple[Any, ...], dict[str, Any]]]:
    source = model if isinstance(model, Source) else None
    original = model.model if isinstance(model, Source) else model
    if not isinstance(original, nn.Module | ExportedProgram):
        raise UnusableInput(
            f"a {type(original).__name__} is not a model: give an nn.Module, an ExportedProgram, "
            "or what reparamkit.load returned"
        )
    broken = non_finite(original)
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise UnusableInput(
            f"the model has NaN or infinite weights: {', '.join(broken[:5])}{more}; "
            "nothing computed from them could be compared"
        )
    if example_inputs is not None:
        return original, normalise_inputs(example_inputs)
    if source is not None and source.example_inputs is not None:
        return original, (source.example_inputs, source.example_kwargs)
    if isinstance(original, ExportedProgram) and original.example_inputs is not None:
        args, kwargs = original.example_inputs
        return original, (tuple(args), dict(kwargs))
    return original, normalise_inputs(example_inputs)


def _findings(program: Program, outcome: Outcome, before: dict[str, int], model: Model) -> Inspection:
    notes = (*(model.notes if isinstance(model, Source) else ()), *program.notes)
    after = census(outcome.module.graph, dict(outcome.module.named_modules()))
    return Inspection(outcome.folds, outcome.refusals, before, after, program.sizes, notes)


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
