"""Save a network under the format that the file's suffix names, and only once the file has proved itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference, inputs_accepted_by
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import UnusableInput
from reparamkit.lower import exported, onnx, pt2
from reparamkit.lower.files import check_writable, write_verified
from reparamkit.lower.module import save_module
from reparamkit.lower.saved import Saved, plain_names
from reparamkit.lower.suffixes import check_suffix, require_packages
from reparamkit.runners.base import Runner
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.isolation import call_untouched


def save(
    program: ExportedProgram | nn.Module | Callable[[], ExportedProgram],
    path: str | Path,
    reference: Reference,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    axis_names: Mapping[str, str] | None = None,
    before_it_appears: Callable[[], object] | None = None,
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
        before_it_appears: called once the file has passed; if it raises, the file does not appear.
        allow_untold: write the file where it cannot be told whether it is right, too.

    Raises:
        UnusableInput: the suffix is unknown, the folder does not exist, the disk is full, …; or it cannot be
            told whether the file computes what the reference computes.
        MissingExtra: ONNX is asked for and a package that it needs is not installed.
        NotEquivalent: the file does not compute what the reference computes. Nothing was written.
    """
    path = Path(path)
    check_suffix(path)
    check_writable(path)
    if path.suffix == ".mlpackage":
        raise UnusableInput(f"cannot write {path}: a Core ML package is written by `save_coreml`")
    if path.suffix == ".onnx":
        require_packages()
    if isinstance(program, nn.Module):
        verdict, layers, said = save_module(
            program, path, reference, before_it_appears=before_it_appears, allow_untold=allow_untold
        )
        return Saved(path, verdict, layers, said)
    made = program if isinstance(program, ExportedProgram) else program()
    names = dict(axis_names if axis_names is not None else exported.axis_names(made))
    _widen(reference, made, names)
    verdicts: list[Equivalence] = []
    notes: list[str] = []
    operators: Counter[str] = Counter()

    def write(target: Path) -> None:
        if path.suffix == ".pt2":
            pt2.save_pt2(made, target)
            return
        notes.extend(
            onnx.save_onnx(
                made,
                target,
                input_names=input_names,
                output_names=output_names or plain_names(reference.output_names),
                axis_names=names,
            )
        )

    def verify(target: Path) -> None:
        judged: Recorded = reference
        refused: list[str] = []
        if path.suffix == ".pt2":
            refused = refused_sizes(reference, made)
            judged = reference.narrowed(lambda record: record.probe.name not in refused)
        verdict = judged.judge(_runner(target))
        verdict.require(f"{path} was not written: the file is", allow_untold=allow_untold)
        verdicts.append(verdict)
        if refused:
            notes.append(f"torch.export's own guards refuse these sizes in the file: {', '.join(refused)}")
        if before_it_appears is not None:
            before_it_appears()
        operators.update(onnx.operator_counts(target) if path.suffix == ".onnx" else aten_counts(made))

    write_verified(path, write, verify)
    if path.suffix == ".onnx":
        onnx.remove_stale_weights(path)
    return Saved(path, verdicts[0], operators, tuple(notes))


def aten_counts(program: ExportedProgram) -> Counter[str]:
    """How many calls of each operator a program holds, by name ("conv2d", "relu")."""
    return Counter(
        str(getattr(node.target, "overloadpacket", node.target)).rsplit(".", 1)[-1]
        for node in program.graph.nodes
        if node.op == "call_function"
    )


def _runner(path: Path) -> Runner:
    if path.suffix == ".onnx":
        return OnnxRuntimeRunner(path)
    return TorchRunner(pt2.load_pt2(path).module(), path.name)


def refused_sizes(reference: Recorded, program: ExportedProgram) -> list[str]:
    """The probes at other sizes that torch's own guards in a program refuse.

    torch.export writes down that sizes inside the network are not one, whether or not that matters. A file
    that refuses a size gives no wrong answer.
    """
    module, refused = program.module(), []
    for record in reference.records:
        if record.probe.sizes:
            try:
                call_untouched(module, *record.probe.inputs())
            except AssertionError as error:
                if str(error).startswith("Guard failed"):
                    refused.append(record.probe.name)
            except Exception:  # for the comparison to tell
                continue
    return refused


def _widen(reference: Reference, program: ExportedProgram, names: Mapping[str, str]) -> None:
    """Probe along the program's free axes too, under their readable names."""
    axes, ranges = exported.free_axes(program)
    reference.widen(
        {
            index: {axis: names.get(symbol, symbol) for axis, symbol in found.items()}
            for index, found in axes.items()
        },
        {names.get(symbol, symbol): bounds for symbol, bounds in ranges.items()},
        inputs_accepted_by(program),
        inner=exported.inner_sizes_of(program, names),
    )
