"""What `fold` and `inspect` return, and how a folded network is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.program import Program
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.per_call import SteadyRunner, other_sizes
from reparamkit.compare.verdict import Equivalence
from reparamkit.engine.findings import Fold, Refusal
from reparamkit.errors import CannotCapture, CannotWrite, NotEquivalent
from reparamkit.lower.exported import axis_names, export_program, free_shapes, freed_example, inner_sizes_of
from reparamkit.lower.save import save as lower_save
from reparamkit.lower.saved import Saved
from reparamkit.lower.suffixes import check_suffix
from reparamkit.lower.unguardable_axes import exportable_axes as without
from reparamkit.lower.unguardable_axes import unguardable_symbols as settled_symbols
from reparamkit.submodules.search import Submodule as Part
from reparamkit.support.isolation import attributes_kept
from reparamkit.support.surroundings import undisturbed

if TYPE_CHECKING:
    from reparamkit.lower.coreml.options import CoreMlOptions


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

    def __str__(self) -> str:
        return _told(self, None)

    def __repr__(self) -> str:
        return f"<Inspection: {'; '.join(str(self).splitlines())}>"


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

    def __str__(self) -> str:
        return _told(self, self.equivalence)

    def __repr__(self) -> str:
        return f"<Folded: {'; '.join(str(self).splitlines())}>"

    @undisturbed()
    def save(
        self, *paths: str | Path, coreml: CoreMlOptions | None = None, allow_untold: bool = False
    ) -> list[Saved]:
        """Write the folded network to files, each in the format that its suffix names.

        These are .onnx, .mlpackage (Core ML), .pt2 and .pt.

        A `.pt` is the whole module, pickled; it is the only format for a network that was folded in parts.

        The files appear under their names only after each was read back, run and found equivalent to the
        original: all of them, or none.

        Args:
            coreml: what an .mlpackage is to be; by default for iOS 17, in float32, with the sizes free that
                are free in the folded network.
            allow_untold: write files of which it cannot be told whether they compute what the original does
                (their `equivalence` says so and why), too.

        Raises:
            UnusableInput: it cannot be told whether a file computes what the original does; an unknown
                suffix, a missing folder, a full disk, options that do not fit the network, a network that the
                format cannot express. An old file there is untouched.
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
                if Path(paths[i]).suffix == ".mlpackage":
                    from reparamkit.lower.coreml.folded import save_as_package

                    done.append(
                        save_as_package(self, Path(paths[i]), coreml, following, allow_untold=allow_untold)
                    )
                    return
                if Path(paths[i]).suffix == ".pt":
                    reference = self._get_reference()
                    done.append(
                        lower_save(
                            self.module,
                            paths[i],
                            reference,
                            before_it_appears=following,
                            allow_untold=allow_untold,
                        )
                    )
                    return
                done.append(self._save_exported(paths[i], following, allow_untold))

        with attributes_kept(self._original, self.module):
            save_from(0)
        done.reverse()
        self.saved += done
        return done

    def _save_exported(self, path: str | Path, following: Callable[[], object], allow_untold: bool) -> Saved:
        """With the sizes free that may be, or as many of them as the format can express."""
        if not isinstance(self._program, Program):
            return lower_save(
                self._export,
                path,
                self._get_reference(),
                before_it_appears=following,
                allow_untold=allow_untold,
            )
        unguarded = Path(path).suffix == ".onnx"
        notes = self._notes_on_sizes if unguarded else []
        free = without(self._program, self._settled) if unguarded else self._program.axes
        batch = {i: {0: axes[0]} for i, axes in free.items() if 0 in axes}
        tries = [free, *(fewer for fewer in (batch, {}) if fewer != free)]
        tries = [each for i, each in enumerate(tries) if each not in tries[:i]]
        for number, axes in enumerate(tries, 1):
            written = False

            def passed() -> None:
                nonlocal written
                written = True
                following()

            all_free = axes == self._program.axes
            made = self._export if all_free else partial(self._exported_with, axes)
            reference = self._get_reference() if all_free else Reference(self._original, *self._inputs)
            try:
                saved = lower_save(made, path, reference, before_it_appears=passed, allow_untold=allow_untold)
            except (CannotWrite, CannotCapture, NotEquivalent) as reason:
                if written or number == len(tries) or not _may_do_with_fewer(reason, reference):
                    raise
                left = "the batch size alone is free" if tries[number] else "the sizes are the example's"
                notes = [*notes, f"{left}, because with more of them free {reason}"]
                continue
            return replace(saved, notes=(*notes, *saved.notes))
        raise AssertionError("the last try returns or raises")

    def _exported_with(self, axes: dict[int, dict[int, str]]) -> ExportedProgram:
        assert isinstance(self._program, Program)
        if not axes:
            return export_program(self.module, *self._inputs)
        args, kwargs = freed_example(*self._inputs, axes)
        return export_program(self.module, args, kwargs, free_shapes(args, kwargs, axes))

    @cached_property
    def _settled(self) -> dict[str, str]:
        """Symbol -> why it is not free in a file that cannot refuse a size."""
        if not isinstance(self._program, Program):
            return {}
        return settled_symbols(self._program, self._original, self.module, self._inputs)

    @property
    def _notes_on_sizes(self) -> list[str]:
        assert isinstance(self._program, Program)
        names = axis_names(self._program.exported)
        return [
            f"the {names.get(symbol, symbol)} is fixed, because the file cannot refuse a size: {reason}"
            for symbol, reason in self._settled.items()
        ]

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
                    self._program.takes,
                    inner=inner_sizes_of(self._program.exported, names),
                )
        return self._reference

    def _export(self) -> ExportedProgram:
        """The folded module as an exported program, with the sizes free that were free at capture."""
        if self._exported is None:
            assert isinstance(self._program, Program)
            axes = self._program.axes
            args, kwargs = freed_example(self._program.args, self._program.kwargs, axes)
            shapes = free_shapes(self._program.args, self._program.kwargs, axes)
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


def _may_do_with_fewer(reason: Exception, reference: Reference) -> bool:
    """Whether a file with fewer free sizes may be right: one that is wrong is so at other sizes only."""
    if not isinstance(reason, NotEquivalent):
        return True
    if not isinstance(reason.equivalence, Equivalence):
        return False
    failed = {entry.probe for entry in reason.equivalence.outputs if not entry.passed}
    failed |= {*reason.equivalence.broken_probes}
    return all(record.probe.sizes for record in reference.records if record.probe.name in failed)


def _told(found: Inspection | Folded, equivalence: Equivalence | None) -> str:
    """What was found in a few lines; the findings themselves may be hundreds."""
    changed = [
        f"{operator} {before} -> {after}"
        for operator in dict.fromkeys([*found.before, *found.after])
        if (before := found.before.get(operator, 0)) != (after := found.after.get(operator, 0))
    ]
    counts = {
        "folds": len(found.folds),
        "operators that stay, with a reason": len(found.refusals),
        "folds taken back": len(found.undone),
    }
    lines = [", ".join(f"{what}: {n}" for what, n in counts.items() if n or what == "folds")]
    lines += [", ".join(changed)] if changed else []
    if found.parts:
        lines.append(f"{len(found.parts)} parts of a network that cannot be captured as a whole")
    return "\n".join([*lines, found.sizes, *([equivalence.summary()] if equivalence is not None else [])])


def _check_is_module_file(path: Path, why: CannotCapture) -> None:
    check_suffix(path)
    if path.suffix != ".pt":
        raise CannotCapture(
            f"cannot write {path}: the network as a whole cannot be exported: {why.reason}. What was folded "
            "are parts of it, inside a copy of the module, which can be saved whole under the suffix .pt: "
            f"{path.with_suffix('.pt')}",
            why.reason,
        )
