"""What `fold` and `inspect` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from reparamkit.capture.program import Captured
from reparamkit.compare.network import Network
from reparamkit.compare.verdict import Equivalence
from reparamkit.engine.findings import Fold, Refusal
from reparamkit.engine.relative_error import BAR
from reparamkit.hosts.fx.outline import Outline
from reparamkit.lower.lowering import Lowering
from reparamkit.lower.request import Request
from reparamkit.lower.save import save
from reparamkit.lower.saved import Saved
from reparamkit.report.findings import Report
from reparamkit.report.fold_html import notebook_html
from reparamkit.submodules.search import Submodule
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
        outlines: the captured network and the folded one as plain data, for drawings.
    """

    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    before: dict[str, int]
    after: dict[str, int]
    sizes: str
    notes: tuple[str, ...]
    undone: tuple[Refusal, ...]
    parts: tuple[Submodule, ...]
    outlines: tuple[Outline, Outline]

    def __str__(self) -> str:
        return _told(self, None)

    def __repr__(self) -> str:
        return f"<Inspection: {'; '.join(str(self).splitlines())}>"

    def _repr_html_(self) -> str:
        return notebook_html(report_of(self, ""))


@dataclass
class Folded:
    """A folded network.

    Attributes:
        module: the folded `nn.Module`, called as the original was. Every folded layer is an `nn.Conv*d`,
            `nn.ConvTranspose*d` or `nn.Linear` with a bias at the path of the module that owned it. With
            `parts`, a copy of the original in which each folded part runs a folded graph, its child `folded`.
        folds, refusals, before, after, sizes, notes, undone, parts, outlines: as in `Inspection`.
        equivalence: the verdict on the whole network; None with `verify=False`.
        network: the folded network with its example, the sizes that may vary, and its original, which it has
            to agree with.
        captured: how it was captured: as one graph, or in parts.
        merge_siblings: as it was asked of `fold`.
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
    parts: tuple[Submodule, ...]
    outlines: tuple[Outline, Outline]
    equivalence: Equivalence | None
    network: Network
    captured: Captured
    merge_siblings: bool = False
    saved: list[Saved] = field(default_factory=list)

    def __str__(self) -> str:
        return _told(self, self.equivalence)

    def __repr__(self) -> str:
        return f"<Folded: {'; '.join(str(self).splitlines())}>"

    def _repr_html_(self) -> str:
        return notebook_html(report_of(self, self.network.label))

    @undisturbed()
    def save(
        self,
        *paths: str | Path,
        coreml: CoreMlOptions | None = None,
        allow_untold: bool = False,
        executorch_backend: str | None = None,
        opset: int | None = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> list[Saved]:
        """Write the folded network to files, each in the format that its suffix names.

        These are .onnx, .mlpackage (Core ML), .pte (ExecuTorch), .pt2, .pt and .py (plain PyTorch code, its
        weights beside it).

        A `.pt` is the whole module, pickled; it is the only format for a network that was folded in parts.

        The files appear under their names only after each was read back, run and found equivalent to the
        original: all of them, or none.

        Args:
            coreml: what an .mlpackage is to be; by default for iOS 17, in float32, with the sizes free that
                are free in the folded network.
            allow_untold: write files of which it cannot be told whether they compute what the original does
                (their `equivalence` says so and why), too.
            executorch_backend: what runs a .pte: "xnnpack" (the default) as much of the network as it knows,
                or "portable", ExecuTorch's own kernels, which know most operators and are slow.
            opset: of an .onnx, 14 to 25; by default torch.onnx's own choice. One below 18 as far as ONNX's
                converter leads the network back.
            input_names: in an .onnx, .mlpackage or .pte, one per tensor, in order; by default what the
                forward calls them.
            output_names: there, one per tensor, in order; by default their places ("map_0").

        Raises:
            UnusableInput: it cannot be told whether a file computes what the original does; an unknown
                suffix, a missing folder, a full disk, options that do not fit the network, a network that the
                format cannot express. An old file there is untouched.
            CannotCapture: an exported format for a network that cannot be exported as a whole.
            MissingExtra: a package for that format is not installed.
            NotEquivalent: the file does not compute what the original does; nothing was written.
        """
        with attributes_kept(self.lowering.original, self.module):
            names = input_names or (), output_names or ()
            request = Request(coreml, allow_untold, executorch_backend, opset, *names)
            written = save(self.lowering, [Path(path) for path in paths], request)
        self.saved += written
        return written

    @cached_property
    def lowering(self) -> Lowering:
        """What files are made of."""
        return Lowering(
            self.network, self.captured, len(self.folds), self.before, self.after, self.merge_siblings
        )


def report_of(
    result: Inspection | Folded,
    name: str,
    *,
    source_bytes: int | None = None,
    command: str = "",
    versions: Mapping[str, str] | None = None,
) -> Report:
    """What was found as the reports take it.

    Args:
        name: what the network is called.
        source_bytes: the size of the file that it came from.
        command: what was typed.
        versions: of what it was made with.
    """
    folded = result if isinstance(result, Folded) else None
    return Report(
        name,
        result.sizes,
        result.before,
        result.after,
        result.folds,
        result.refusals,
        result.notes,
        None if folded is None else folded.equivalence,
        () if folded is None else folded.saved,
        result.undone,
        result.parts,
        result.outlines,
        source_bytes,
        command,
        versions or {},
        bar=BAR,
    )


def _told(result: Inspection | Folded, equivalence: Equivalence | None) -> str:
    """What was found in a few lines; the findings themselves may be hundreds."""
    changed = [
        f"{operator} {before} -> {after}"
        for operator in dict.fromkeys([*result.before, *result.after])
        if (before := result.before.get(operator, 0)) != (after := result.after.get(operator, 0))
    ]
    counts = {
        "folds": len(result.folds),
        "operators that stay, with a reason": len(result.refusals),
        "folds taken back": len(result.undone),
    }
    lines = [", ".join(f"{what}: {n}" for what, n in counts.items() if n or what == "folds")]
    lines += [", ".join(changed)] if changed else []
    if result.parts:
        lines.append(f"{len(result.parts)} parts of a network that cannot be captured as a whole")
    return "\n".join([*lines, result.sizes, *([equivalence.summary()] if equivalence is not None else [])])
