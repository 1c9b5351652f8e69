"""Save a program by itself, or a module: a format's part in it without a fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
from torch import nn
from torch.export import ExportedProgram

from reparamkit.compare.float64.reference import Reference
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import check_writable, staged
from reparamkit.lower.formats import Format, format_of
from reparamkit.lower.request import Request
from reparamkit.lower.saved import Saved
from reparamkit.lower.writer import FileWriter, Work


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


def convolutions_without_bias(path: Path) -> list[str]:
    """The names of the convolution nodes of an ONNX file that have no bias input."""
    return [
        node.name
        for node in onnx.load(path).graph.node
        if node.op_type == "Conv" and (len(node.input) < 3 or not node.input[2])
    ]
