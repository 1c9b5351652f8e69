"""Save a folded network as an `.mlpackage`, and only once the package has proved itself.

A package is read back from the disk and evaluated on every probe of a size that it takes. Sizes stay free
where that works. Where coremltools cannot keep them free, or what it makes of them computes something else at
another size, the package has the example's size, and a note says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram

from reparamkit.compare.allowance import allowance, judge_stored, stored_budget
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.run import Run as Record
from reparamkit.compare.inputs.sizes import DynamicAxes
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.lower.coreml.convert import Keep, convert
from reparamkit.lower.coreml.float16 import Lost, exactly, in_words, measured, next_choice, settled
from reparamkit.lower.coreml.keep import kept
from reparamkit.lower.coreml.labels import check_fits, read_labels
from reparamkit.lower.coreml.metadata import Facts, description, entries
from reparamkit.lower.coreml.names import identifiers, operator_origins
from reparamkit.lower.coreml.options import CoreMlOptions, Shape
from reparamkit.lower.coreml.package import write_package
from reparamkit.lower.coreml.prepare import prepared
from reparamkit.lower.coreml.readback import WithTruthValues
from reparamkit.lower.coreml.shapes import Sizes, check_listed, probe_of, ranges_of, written
from reparamkit.lower.coreml.toolbox import require_coremltools, version_note
from reparamkit.lower.exported import free_axes
from reparamkit.lower.files import check_writable, write_verified
from reparamkit.lower.saved import Saved, plain_names
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves


class Subject(Protocol):
    """What is lowered: a network and what it has to agree with.

    Attributes:
        inputs: its example.
        axes: those that may be free, flat tensor index -> axis -> symbol.
        facts: for the package's metadata.
        image_bias: for an image input, what Core ML adds to its channels before the network.
        input_names: of the tensors, in order.
        inner: the path of the network in what is exported; empty where that is the network.
    """

    inputs: tuple[Args, Kwargs]
    axes: DynamicAxes
    facts: Facts
    image_bias: tuple[float, ...] | None
    input_names: list[str]
    inner: str

    def export(self, inputs: tuple[Args, Kwargs], axes: DynamicAxes) -> ExportedProgram:
        """The network at the sizes of these inputs, with these axes free as far as they can be.

        Raises:
            CannotCapture: it does not take them, or cannot be exported with them.
        """

    def reference(self, inputs: tuple[Args, Kwargs], program: ExportedProgram) -> Reference:
        """What the package has to agree with, probed at these inputs and at other sizes of `program`."""


@dataclass(frozen=True)
class _Plan:
    """One way to lower the network: with these axes free, or with these shapes; `wish` says what it keeps."""

    inputs: tuple[Args, Kwargs]
    axes: DynamicAxes
    shapes: tuple[Shape, ...]
    wish: str

    def sizes(self, program: ExportedProgram) -> list[Sizes]:
        tensors = [tensor for _, tensor in tensor_leaves(*self.inputs)]
        if self.shapes:
            return [Sizes(self.shapes[0], self.shapes[0], self.shapes)]
        return ranges_of(tensors, *free_axes(program))


def save_coreml(
    subject: Subject,
    path: Path,
    options: CoreMlOptions,
    *,
    before_it_appears: Callable[[], object] | None = None,
    allow_untold: bool = False,
) -> Saved:
    """Write a network as an ML program, evaluate the package against the reference, put it in place.

    Args:
        path: ends in `.mlpackage`; an older package there is replaced, or left as it was.
        before_it_appears: called once the package has passed; if it raises, the package does not appear.
        allow_untold: write the package where it cannot be told whether it is right, too.

    Raises:
        UnusableInput: the options do not fit the network, coremltools cannot convert it, the place cannot be
            written.
        MissingExtra: coremltools is not installed.
        NotEquivalent: the package does not compute what the reference computes. Nothing was written.
    """
    check_writable(path)
    require_coremltools()
    labels = read_labels(options.labels) if options.labels is not None else None
    plans = _plans(subject, options)
    notes: list[str] = []
    passed = False

    def following() -> None:
        nonlocal passed
        passed = True
        if before_it_appears is not None:
            before_it_appears()

    while True:
        plan = plans.pop(0)
        try:
            return _saved(subject, plan, path, options, labels, notes, following, allow_untold)
        except (UnusableInput, NotEquivalent) as error:
            if not plans or passed:
                raise
            notes.append(f"{plan.wish} could not be kept: {getattr(error, 'reason', None) or error}")


def _plans(subject: Subject, options: CoreMlOptions) -> list[_Plan]:
    """What to try, best first."""
    if options.shapes:
        return [_listed(subject, options.shapes)]
    fixed = _Plan(subject.inputs, {}, (), "")
    if options.sizes == "fixed" or not subject.axes:
        return [fixed]
    return [_Plan(subject.inputs, subject.axes, (), "flexible sizes"), fixed]


def _listed(subject: Subject, shapes: tuple[Shape, ...]) -> _Plan:
    tensors = [tensor for _, tensor in tensor_leaves(*subject.inputs)]
    check_listed(tensors, shapes)
    example = tuple(tensors[0].shape)
    inputs = subject.inputs
    if shapes[0] != example:
        inputs = probe_of(shapes[0], example, *inputs, seed=0).inputs()
    differ = {axis for shape in shapes for axis, size in enumerate(shape) if size != shapes[0][axis]}
    free = subject.axes.get(0, {})
    fixed = sorted(differ - set(free))
    if fixed:
        raise UnusableInput(
            f"the shapes {', '.join(map(written, shapes))} differ in axis {fixed[0]}, whose size the network "
            f"fixes at {example[fixed[0]]}"
        )
    return _Plan(inputs, {0: {axis: free[axis] for axis in sorted(differ)}} if differ else {}, shapes, "")


def _saved(
    subject: Subject,
    plan: _Plan,
    path: Path,
    options: CoreMlOptions,
    labels: Sequence[str] | None,
    earlier: Sequence[str],
    before_it_appears: Callable[[], object],
    allow_untold: bool,
) -> Saved:
    program = subject.export(plan.inputs, plan.axes)
    sizes = plan.sizes(program)
    reference = subject.reference(plan.inputs, program)
    _try_listed(reference, plan)
    if reference.precision is torch.float64:
        raise UnusableInput(
            "Core ML computes in float32 at most, and this network in float64: give it as float32"
        )
    if labels is not None:
        truths = reference.records[0].truths
        check_fits(labels, [(truth.name, tuple(truth.values.shape)) for truth in truths])
    inputs = identifiers(subject.input_names)
    outputs = identifiers(plain_names(reference.output_names), inputs)
    made = prepared(program, [*inputs, *outputs], subject.inner)
    keep, said = kept(options, made)
    found: list[tuple[Equivalence, Counter[str]]] = []
    lost: list[Lost] = []
    stay: list[str] = []

    def lowered(keep: Keep | None) -> Any:
        return convert(
            made,
            sizes,
            options,
            input_names=inputs,
            output_names=outputs,
            image_bias=subject.image_bias,
            labels=labels,
            keep=keep,
        )

    def measure(model: Any) -> list[Lost]:
        with TemporaryDirectory() as folder:
            trial = Path(folder) / "trial.mlpackage"
            write_package(model, trial, metadata={}, description="")
            records = _narrowed(reference, sizes).records
            return measured(CoreMlRunner(trial), records, made)

    def write(target: Path) -> None:
        write_package(
            lowered(keep),
            target,
            metadata=entries(subject.facts, options),
            description=description(subject.facts, options),
        )

    def verify(target: Path) -> None:
        runner = CoreMlRunner(target)
        verdict = _judged(reference, runner, sizes, options.precision)
        if options.precision == "float16" and not stay:
            lost[:] = measured(runner, _narrowed(reference, sizes).records, made)
        if verdict.differs:
            said = f"; float16 loses most at {in_words(lost[:3])}" if lost else ""
            raise NotEquivalent(f"{path} was not written: the package is {verdict.summary()}{said}", verdict)
        verdict.require(f"{path} was not written: the package is", allow_untold=allow_untold)
        before_it_appears()
        found.append((verdict, Counter(runner.operators)))

    if options.keep_float32 == "auto":
        stay, lost = settled(lowered, measure)
        keep = exactly(stay)
    while True:
        try:
            write_verified(path, write, verify)
            break
        except NotEquivalent:
            more = next_choice(lost, stay) if options.keep_float32 == "auto" else []
            if not more:
                raise
            stay += more
            keep = exactly(stay)
    verdict, operators = found[0]
    if stay:
        taken = [each for each in lost if each.origin in stay]
        said = [
            f"{len(stay)} of {len(set(operator_origins(made)))} layers stay in float32, where float16 "
            f"loses most: {in_words(taken)}"
        ]
    elif lost:
        said.append(f"float16 loses most at {in_words(lost[:3])}")
    notes = [
        *earlier,
        f"for {options.target} and later, in {options.precision}; {_in_words(inputs, sizes)}",
        *said,
        *_convolutions(subject.facts, operators),
        version_note(),
    ]
    return Saved(path, verdict, operators, tuple(filter(None, notes)))


def _judged(
    reference: Reference, runner: CoreMlRunner, sizes: Sequence[Sizes], precision: str
) -> Equivalence:
    """The verdict on the probes of the sizes that the package takes.

    Raises:
        UnusableInput: as `Recorded.judge`.
    """
    allowed = allowance(reference, precision)
    dtypes = [truth.dtype for truth in reference.records[0].truths]
    try:
        # Core ML has no integers of 64 bits.
        verdict = _narrowed(allowed.recorded, sizes).judge(
            WithTruthValues(runner, dtypes), rule=allowed.rule, same_dtypes=False
        )
        exact = stored_budget(reference, runner, precision)
        if exact is not None and verdict.passed:
            again = WithTruthValues(runner.in_float64(), dtypes)
            verdict = judge_stored(exact, _narrowed(exact.recorded, sizes), again, verdict)
    except UnusableInput as error:
        if precision == "float32":
            raise
        raise UnusableInput(_drowned(precision, str(error))) from error
    if precision != "float32" and "noisy" in verdict.untold:
        why = _drowned(precision, verdict.untold)
        verdict = replace(verdict, untold=why, reason=why)
    stated = [allowed.stated] if precision == "float16" else []
    return replace(verdict, notes=(*verdict.notes, *stated, *allowed.notes))


def _drowned(precision: str, why: str) -> str:
    return (
        f"whether the network still computes the same in {precision} cannot be told: its own rounding "
        f"errors there are as large as its outputs ({why}); choose float32, or keep the layers that "
        "need it in float32"
    )


def _narrowed(recorded: Recorded, sizes: Sequence[Sizes]) -> Recorded:
    """The probes of the sizes that the package takes."""
    return recorded.narrowed(lambda record: _admitted(record, sizes))


def _admitted(record: Record, sizes: Sequence[Sizes]) -> bool:
    tensors = [tensor for _, tensor in tensor_leaves(*record.probe.inputs())]
    return all(each.admits(tuple(tensor.shape)) for each, tensor in zip(sizes, tensors, strict=True))


def _try_listed(reference: Reference, plan: _Plan) -> None:
    """Probe at every shape that was listed."""
    proposals = {
        written(shape): [probe_of(shape, plan.shapes[0], *plan.inputs, seed=reference.seed)]
        for shape in plan.shapes[1:]
    }
    if proposals:
        missed = reference.try_sizes(proposals)
        if missed:
            raise UnusableInput(f"the network does not take an input of shape {missed[0]}")


def _in_words(names: Sequence[str], sizes: Sequence[Sizes]) -> str:
    return ", ".join(f"{name}: {each.in_words()}" for name, each in zip(names, sizes, strict=True))


def _convolutions(facts: Facts, operators: Counter[str]) -> list[str]:
    folded = sum(count for name, count in facts.after.items() if name in ("conv1d", "conv2d", "conv3d"))
    if operators["conv"] == folded:
        return []
    return [
        f"it holds {operators['conv']} conv for the {folded} convolutions of the folded network (what "
        "depends on no input is computed beforehand)"
    ]
