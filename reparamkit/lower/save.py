"""Save a network under the formats that files' suffixes name, and only once every file has proved itself.

stage all ─▶ verify all ─▶ put all in place
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.program import InParts
from reparamkit.compare.float64.reference import Reference
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.lower.files import check_writable, staged
from reparamkit.lower.formats import Format, format_of
from reparamkit.lower.lowering import Lowering
from reparamkit.lower.request import Request
from reparamkit.lower.saved import Saved
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.support.progress import phase


def save(lowering: Lowering, paths: Sequence[Path], request: Request) -> list[Saved]:
    """Write a folded network to files, each in the format of its suffix: all appear, or none.

    Raises:
        UnusableInput: it cannot be told whether a file computes what the original does; an unknown suffix, a
            missing folder, a full disk, a network that the format cannot express. Old files are untouched.
        CannotCapture: an exported format for a network that cannot be exported as a whole.
        MissingExtra: a package for a format is not installed.
        NotEquivalent: a file does not compute what the original does. Nothing was written.
    """
    formats = [format_of(path) for path in paths]
    request.check_for(paths)
    for path, each in zip(paths, formats, strict=True):
        if isinstance(lowering.captured, InParts) and each.whole:
            raise _in_parts_only(path, lowering.captured.why)
    if request.input_names or request.output_names:
        request.check_counts(lowering.input_names, lowering.network.reference.output_names)
    results = []
    with ExitStack() as stack:
        stages = []
        for path, each in zip(paths, formats, strict=True):
            check_writable(path)
            each.require()
            each.writer.require()
            stages.append(stack.enter_context(staged(path)))
            refuses = each.refuses_sizes
            with phase(str(path)):
                results.append(each.writer.stage(lowering, stages[-1], request, refuses_sizes=refuses))
        for stage in stages:
            stage.commit()
    for path, each in zip(paths, formats, strict=True):
        each.writer.finish(path)
    return results


def save_program(
    program: ExportedProgram | nn.Module | Callable[[], ExportedProgram],
    path: str | Path,
    reference: Reference,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    axis_names: Mapping[str, str] | None = None,
    allow_untold: bool = False,
) -> Saved:
    """Write a program to a file, run the file against the reference, and put it in place if it agrees.

    A `.pt2` is read back with torch.export, an `.onnx` runs under ONNX Runtime; both on every probe of the
    reference, and where the program has free axes at another batch and another size. A `.pt` is a whole
    module, pickled.

    Args:
        program: what to save, or a function that makes it; called only after the path was found usable. An
            `nn.Module` goes into a `.pt`, and nothing else does.
        path: `.onnx`, `.pt2` or `.pt`; an older file there is replaced in one step, or not at all.
        reference: what the file has to agree with. It is widened by the program's free axes.
        input_names, output_names: names in an ONNX file; the outputs' default is the reference's names,
            with "_" for "." and "output_" before a bare number.
        axis_names: symbol -> readable name of a free axis; by default batch, height, width, …
        allow_untold: write the file where it cannot be told whether it is right, too.

    Raises:
        UnusableInput: the suffix is unknown, the folder does not exist, the disk is full, …; or it cannot be
            told whether the file computes what the reference computes.
        MissingExtra: ONNX is asked for and a package that it needs is not installed.
        NotEquivalent: the file does not compute what the reference computes. Nothing was written.
    """
    path = Path(path)
    kind = format_of(path)
    check_writable(path)
    writer = _writer_for(path, kind, program)
    kind.require()
    writer.require()

    def exported() -> ExportedProgram:
        assert not isinstance(program, nn.Module)
        return program if isinstance(program, ExportedProgram) else program()

    module = program if isinstance(program, nn.Module) else None
    request = Request(allow_untold=allow_untold)
    work = Work(path, module, reference, exported, request, None, input_names, output_names, axis_names)
    with staged(path) as stage:
        saved = writer.staged(work, stage)
        stage.commit()
    writer.finish(path)
    return saved


def _writer_for(path: Path, kind: Format, program: object) -> FileWriter:
    if not isinstance(kind.writer, FileWriter):
        raise UnusableInput(f"cannot write {path}: a {kind.name} package is written by `Folded.save`")
    if isinstance(program, nn.Module) is kind.writer.exports:
        given = "a whole module" if kind.writer.exports else "an exported program"
        raise UnusableInput(f"cannot write {path}: {given} does not go into a {kind.suffix}")
    return kind.writer


def _in_parts_only(path: Path, why: CannotCapture) -> CannotCapture:
    return CannotCapture(
        f"cannot write {path}: the network as a whole cannot be exported: {why.reason}. What was folded "
        "are parts of it, inside a copy of the module, which can be saved whole under the suffix .pt: "
        f"{path.with_suffix('.pt')}",
        why.reason,
    )
