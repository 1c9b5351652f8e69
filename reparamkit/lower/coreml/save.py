"""Save a folded network as an `.mlpackage`, and only once the package has proved itself.

A package is read back from the disk and evaluated on every probe of a size that it takes. Sizes stay free
where that works. Where coremltools cannot keep them free, or what it makes of them computes something else at
another size, the package has the example's size, and a note says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.export import ExportedProgram

from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.run import Run
from reparamkit.compare.inputs.sizes import DynamicAxes
from reparamkit.compare.profile import DEPLOYED, allowed_by, judge_candidate
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.lower.coreml.convert import Keep, convert
from reparamkit.lower.coreml.float16 import Lost, exactly, in_words, kept, measured, next_choice, settled
from reparamkit.lower.coreml.identifiers import identifiers
from reparamkit.lower.coreml.image_network import behind_an_image
from reparamkit.lower.coreml.labels import check_fits, read_labels
from reparamkit.lower.coreml.names import operator_origins
from reparamkit.lower.coreml.network import Packaged, packaged
from reparamkit.lower.coreml.options import CoreMlOptions, Shape
from reparamkit.lower.coreml.package import description, entries, write_package
from reparamkit.lower.coreml.prepare import prepared
from reparamkit.lower.coreml.shapes import Sizes, check_listed, probe_of, ranges_of, written
from reparamkit.lower.coreml.toolbox import require_coremltools, version_note
from reparamkit.lower.exported import free_axes
from reparamkit.lower.facts import Facts
from reparamkit.lower.files import Stage
from reparamkit.lower.lowering import Lowering
from reparamkit.lower.request import Request
from reparamkit.lower.saved import Saved
from reparamkit.lower.writer import Writer
from reparamkit.runners.base import NamedTensors, Runner
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves
from reparamkit.support.output_names import plain_names
from reparamkit.support.progress import phase


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


class PackageWriter(Writer):
    """`.mlpackage`: an ML program, evaluated by its operators' definitions."""

    def require(self) -> None:
        require_coremltools()

    def stage(self, lowering: Lowering, stage: Stage, request: Request, *, refuses_sizes: bool) -> Saved:
        options = request.coreml or CoreMlOptions()
        network = packaged(lowering)
        if options.image is not None:
            network = behind_an_image(network, lowering, options.image)
        labels = read_labels(options.labels) if options.labels is not None else None
        plans = _plans(network, options)
        notes: list[str] = []
        while True:
            plan = plans.pop(0)
            try:
                saved = _saved(network, plan, stage, options, labels, notes, request)
                return replace(saved, notes=(*lowering.notes_on_sizes, *saved.notes))
            except (UnusableInput, NotEquivalent) as error:
                if not plans:
                    raise
                notes.append(f"{plan.wish} could not be kept: {getattr(error, 'reason', None) or error}")


WRITER = PackageWriter()


def _plans(network: Packaged, options: CoreMlOptions) -> list[_Plan]:
    """What to try, best first."""
    if options.shapes:
        return [_listed(network, options.shapes)]
    fixed = _Plan(network.example, {}, (), "")
    if options.sizes == "fixed" or not network.axes:
        return [fixed]
    return [_Plan(network.example, network.axes, (), "flexible sizes"), fixed]


def _listed(network: Packaged, shapes: tuple[Shape, ...]) -> _Plan:
    tensors = [tensor for _, tensor in tensor_leaves(*network.example)]
    check_listed(tensors, shapes)
    example = tuple(tensors[0].shape)
    inputs = network.example
    if shapes[0] != example:
        inputs = probe_of(shapes[0], example, *inputs, seed=0).inputs()
    differ = {axis for shape in shapes for axis, size in enumerate(shape) if size != shapes[0][axis]}
    free = network.axes.get(0, {})
    fixed = sorted(differ - set(free))
    if fixed:
        raise UnusableInput(
            f"the shapes {', '.join(map(written, shapes))} differ in axis {fixed[0]}, whose size the network "
            f"fixes at {example[fixed[0]]}"
        )
    return _Plan(inputs, {0: {axis: free[axis] for axis in sorted(differ)}} if differ else {}, shapes, "")


def _saved(
    network: Packaged,
    plan: _Plan,
    stage: Stage,
    options: CoreMlOptions,
    labels: Sequence[str] | None,
    earlier: Sequence[str],
    request: Request,
) -> Saved:
    path = stage.path
    with phase("export"):
        program = network.export(plan.inputs, plan.axes)
    sizes = plan.sizes(program)
    reference = network.recorded(plan.inputs, program)
    _try_listed(reference, plan)
    if reference.precision is torch.float64:
        raise UnusableInput(
            "Core ML computes in float32 at most, and this network in float64: give it as float32"
        )
    if labels is not None:
        truths = reference.records[0].truths
        check_fits(labels, [(truth.name, tuple(truth.values.shape)) for truth in truths])
    inputs = identifiers(request.input_names or network.input_names)
    outputs = identifiers(request.output_names or plain_names(reference.output_names), inputs)
    converted = prepared(program, [*inputs, *outputs])
    keep, said = kept(options, converted)
    lost: list[Lost] = []
    stay: list[str] = []

    def lowered(keep: Keep | None) -> Any:
        with phase("conversion"):
            return convert(
                converted,
                sizes,
                options,
                input_names=inputs,
                output_names=outputs,
                image_bias=network.image_bias,
                labels=labels,
                keep=keep,
            )

    def measure(model: Any) -> list[Lost]:
        with TemporaryDirectory() as folder:
            trial = Path(folder) / "trial.mlpackage"
            write_package(model, trial, metadata={}, description="")
            records = _narrowed(reference, sizes).records
            return measured(CoreMlRunner(trial), records, converted)

    def written() -> tuple[Equivalence, Counter[str]]:
        """Write the package with what stays in float32 now, and judge it."""
        stage.clear()
        write_package(
            lowered(keep),
            stage.made,
            metadata=entries(network.facts, options),
            description=description(network.facts, options),
        )
        stage.check_written()
        runner = CoreMlRunner(stage.made)
        with phase("verify"):
            verdict = _judged(reference, runner, sizes, options.precision)
        if options.precision == "float16" and not stay:
            lost[:] = measured(runner, _narrowed(reference, sizes).records, converted)
        if verdict.differs:
            said = f"; float16 loses most at {in_words(lost[:3])}" if lost else ""
            raise NotEquivalent(f"{path} was not written: the package is {verdict.summary()}{said}", verdict)
        verdict.require(f"{path} was not written: the package is", allow_untold=request.allow_untold)
        return verdict, Counter(runner.operators)

    if options.keep_float32 == "auto":
        stay, lost = settled(lowered, measure)
        keep = exactly(stay)
    while True:
        try:
            verdict, operators = written()
            break
        except NotEquivalent:
            more = next_choice(lost, stay) if options.keep_float32 == "auto" else []
            if not more:
                raise
            stay += more
            keep = exactly(stay)
    if stay:
        taken = [each for each in lost if each.origin in stay]
        said = [
            f"{len(stay)} of {len(set(operator_origins(converted)))} layers stay in float32, where float16 "
            f"loses most: {in_words(taken)}"
        ]
    elif lost:
        said.append(f"float16 loses most at {in_words(lost[:3])}")
    in_sizes = ", ".join(f"{name}: {each.in_words()}" for name, each in zip(inputs, sizes, strict=True))
    notes = [
        *earlier,
        f"for {options.target} and later, in {options.precision}; {in_sizes}",
        *said,
        *_convolutions(network.facts, operators),
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
    allowed = allowed_by(DEPLOYED, reference, precision)
    dtypes = [truth.dtype for truth in reference.records[0].truths]
    try:
        verdict = judge_candidate(
            reference,
            _WithTruthValues(runner, dtypes),
            DEPLOYED,
            precision,
            allowed=allowed,
            in_float64=lambda: _WithTruthValues(runner.in_float64(), dtypes),
            keep=lambda record: _admitted(record, sizes),
        )
    except UnusableInput as error:
        if precision == "float32":
            raise
        raise UnusableInput(_drowned(precision, str(error))) from error
    if precision != "float32" and "noisy" in verdict.untold:
        why = _drowned(precision, verdict.untold)
        verdict = replace(verdict, untold=why, reason=why)
    stated = [allowed.stated] if precision == "float16" else []
    return replace(verdict, notes=(*verdict.notes, *stated, *allowed.notes))


class _WithTruthValues:
    """A runner whose outputs are truth values where the reference's are and it gives nothing but 0 and 1.

    Core ML has no truth values among a package's outputs.
    """

    structured = False

    def __init__(self, runner: Runner, dtypes: Sequence[torch.dtype]) -> None:
        self.name = runner.name
        self._runner = runner
        self._dtypes = list(dtypes)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        outputs = self._runner.run(args, kwargs)
        if len(outputs) != len(self._dtypes):
            return outputs
        return [
            (name, values.bool() if wanted is torch.bool and _is_truth(values) else values)
            for (name, values), wanted in zip(outputs, self._dtypes, strict=True)
        ]


def _is_truth(values: torch.Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _drowned(precision: str, why: str) -> str:
    return (
        f"whether the network still computes the same in {precision} cannot be told: its own rounding "
        f"errors there are as large as its outputs ({why}); choose float32, or keep the layers that "
        "need it in float32"
    )


def _narrowed(recorded: Recorded, sizes: Sequence[Sizes]) -> Recorded:
    """The probes of the sizes that the package takes."""
    return recorded.narrowed(lambda record: _admitted(record, sizes))


def _admitted(record: Run, sizes: Sequence[Sizes]) -> bool:
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


def _convolutions(facts: Facts, operators: Counter[str]) -> list[str]:
    folded = sum(count for name, count in facts.after.items() if name in ("conv1d", "conv2d", "conv3d"))
    if operators["conv"] == folded:
        return []
    return [
        f"it holds {operators['conv']} conv for the {folded} convolutions of the folded network (what "
        "depends on no input is computed beforehand)"
    ]
