"""Compare two networks of which nothing is known, and say same, different or cannot tell.

    open both ─▶ inputs ─▶ probes ─▶ reference, once each ─▶ candidate ─▶ judge ─▶ evidence ─▶ Comparison

`rk.check`, `rk.assert_equivalent`, `reparamkit check` and the fixture for pytest are this; `fold` and `save`,
which have recorded their reference already, begin at the candidate (`reparamkit.compare.profile`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from reparamkit.compare.adapt import Adapted
from reparamkit.compare.comparison import (
    CANNOT_TELL,
    DIFFERENT,
    SAME,
    Comparison,
    InputFact,
    ProbeFact,
    Side,
    versions,
)
from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference, inputs_accepted_by, runs_on
from reparamkit.compare.inputs.example_inputs import Supply, supply
from reparamkit.compare.inputs.free_axes import free_axes
from reparamkit.compare.inputs.input_spec import Described
from reparamkit.compare.inputs.probes import Probe, size_probes, thorough_probes
from reparamkit.compare.inputs.sizes import FreeSizes
from reparamkit.compare.judge import describe
from reparamkit.compare.kept_outputs import keeping
from reparamkit.compare.locate.locating import locate
from reparamkit.compare.locate.location import Location
from reparamkit.compare.network import Network, Opening, open_network
from reparamkit.compare.profile import DEPLOYED, Profile, allowed_by, judge_candidate
from reparamkit.compare.rebuilt import drawn_anew
from reparamkit.compare.saved import SavedOutputs, input_hash, load_outputs
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import ReparamkitError, UnusableInput
from reparamkit.runners.base import BoundsSizes, ComputesInFloat64, InputSpec
from reparamkit.runners.open import EVALUATE
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.isolation import attributes_kept
from reparamkit.support.output_names import chosen
from reparamkit.support.progress import phase
from reparamkit.support.surroundings import undisturbed
from reparamkit.support.text import dtype_name

_ONLY_SAVED = "of the reference there are only outputs that were saved"


@dataclass
class Compared:
    """A comparison with what it was made from, for those who want to keep that.

    Attributes:
        comparison: the answer.
        recorded: the reference's outputs; None where it came to none.
        supply: the inputs.
        reference: the reference as it was opened; None where saved outputs stood in for it.
        candidate: the candidate, called as the reference is; None where it could not be.
    """

    comparison: Comparison
    recorded: Recorded | None = None
    supply: Supply | None = None
    reference: Network | None = None
    candidate: Adapted | None = None

    def __repr__(self) -> str:
        return f"<Compared: {self.comparison.summary()}>"


@undisturbed()
def compare(
    reference: object,
    candidate: object,
    *,
    inputs: object = None,
    described: Sequence[Described] = (),
    data: Path | None = None,
    saved: Path | None = None,
    profile: Profile = DEPLOYED,
    free: FreeSizes | None = None,
    seed: int = 0,
    model: str | None = None,
    model_args: str | Mapping[str, Any] | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    where: bool = True,
    coreml: str = EVALUATE,
    outputs: int | Sequence[str] | None = None,
    strict: bool = False,
) -> Compared:
    """Compare two networks on inputs that expose mistakes.

    Args:
        reference, candidate: what `open_network` takes; the reference may be None where `saved` is given.
        inputs: example inputs as `reparamkit.check` takes them.
        described: inputs in words, one per input, in place of an example.
        data: a file or folder of real inputs (`reparamkit.compare.inputs.data_files`), or a file of probes.
        saved: a file of `save_outputs`: the reference is not run.
        profile: what the candidate is held to.
        free: the sizes to vary; by default those that neither side fixes.
        seed: reproduces the probes.
        model, model_args, key, trust_pickle: as in `reparamkit.load`, for whichever side needs them.
        where: look for the first place that differs, if they do (`reparamkit.compare.locate`).
        coreml: how Core ML programs are run, as in `reparamkit.runners.open_foreign`.
        outputs: which of the reference's outputs the candidate has, where not all; as in `reparamkit.fold`.
        strict: raise what keeps the comparison from being made.

    Returns:
        The comparison. Whatever keeps it from being made, once both names have been given, is an answer
        too: "cannot tell".

    Raises:
        UnusableInput: neither a reference nor saved outputs are given; with `strict` also where one of the
            two cannot be opened, or they take different inputs.
        MissingExtra, UntrustedPickle: with `strict`, as `open_network`.
    """
    if reference is None and saved is None and not strict:
        raise UnusableInput("there is nothing to compare with: give a reference, or saved outputs of one")
    sides = [Side(_label(reference), "", ""), Side(_label(candidate), "", "")]
    try:
        with attributes_kept(reference, candidate):
            held = load_outputs(saved) if saved is not None else None
            how = Opening(model, trust_pickle, model_args, key)
            ours, theirs = _opened(reference, candidate, held, sides, how, coreml)
            fed = supply(ours, theirs, inputs, described, data, seed if held is None else held.seed, held)
            if outputs is not None and ours is not None:
                ours, theirs = _with_outputs(outputs, ours, theirs, fed)
            adapted = Adapted(theirs, fed.names, fed.args, fed.kwargs)
            notes = [*(ours.notes if ours else ()), *theirs.notes, *fed.notes, *adapted.notes]
            if isinstance(theirs.runner, TorchRunner) and theirs.runner.was_training:
                notes.append("the candidate is in training mode; a copy in evaluation mode was compared")
            if ours is not None:
                with phase(f"running {ours.label}"):
                    recorded: Recorded = _record(ours, theirs, adapted, fed, free, notes)
            else:
                assert held is not None
                recorded = held.recorded(fed.again(held))
            comparison = _judged(recorded, adapted, profile, fed, sides, notes)
            if comparison.status == DIFFERENT:
                pairs = (reference, ours), (candidate, theirs)
                anew = (drawn_anew(given, opened, model_args=model_args) for given, opened in pairs)
                why = next(filter(None, anew), "")
                if why:
                    comparison = replace(comparison, status=CANNOT_TELL, reason=why)
            if where and comparison.status == DIFFERENT and comparison.equivalence is not None:
                with phase(f"looking for the place where {theirs.label} first differs"):
                    location = Location(False, "", reason=_ONLY_SAVED)
                    if ours is not None and isinstance(recorded, Reference):
                        verdict = comparison.equivalence
                        location = locate(recorded, ours.runner, adapted, theirs.precision, verdict)
                comparison = replace(comparison, location=location)
            return Compared(comparison, recorded, fed, ours, adapted)
    except ReparamkitError as error:
        if strict:
            raise
        return Compared(
            Comparison(CANNOT_TELL, str(error), sides[0], sides[1], "", seed, versions=versions(None))
        )


def _opened(
    reference: object,
    candidate: object,
    held: SavedOutputs | None,
    sides: list[Side],
    how: Opening,
    coreml: str,
) -> tuple[Network | None, Network]:
    """Both sides, the reference unless there are saved outputs; what they are goes into `sides`."""
    ours = None
    if held is None:
        with phase(f"opening {_label(reference)}"):
            ours = open_network(reference, how=how, coreml=coreml)
        sides[0] = Side(ours.label, ours.runner.name, ours.precision)
    else:
        sides[0] = Side(held.reference, "saved outputs", dtype_name(held.precision))
    with phase(f"opening {_label(candidate)}"):
        theirs = open_network(candidate, how=how, coreml=coreml)
    sides[1] = Side(theirs.label, theirs.runner.name, theirs.precision)
    return ours, theirs


def _with_outputs(
    keep: int | Sequence[str], ours: Network, theirs: Network, fed: Supply
) -> tuple[Network, Network]:
    """Both sides with some of the reference's outputs; a candidate that has others stays as it is.

    Raises:
        UnusableInput: there are no such outputs, or the reference is not PyTorch's.
    """
    if not isinstance(ours.runner, TorchRunner):
        raise UnusableInput(
            "outputs are left out of a network that PyTorch runs, and "
            f"{ours.label} runs under {ours.runner.name}"
        )
    names = [name for name, _ in ours.runner.run(fed.args, fed.kwargs)]
    kept = chosen(keep, names)
    sides = []
    for side in (ours, theirs):
        runner = side.runner
        if side is theirs:
            if not isinstance(runner, TorchRunner):
                sides.append(side)
                continue
            given = Adapted(side, fed.names, fed.args, fed.kwargs).run(fed.args, fed.kwargs)
            if [name for name, _ in given] != names:
                sides.append(side)
                continue
        assert isinstance(runner, TorchRunner)
        module = keeping(runner.module, kept)
        assert isinstance(module, nn.Module)
        sides.append(replace(side, runner=TorchRunner(module, runner.name)))
    return sides[0], sides[1]


def _record(
    ours: Network,
    theirs: Network,
    adapted: Adapted,
    fed: Supply,
    free: FreeSizes | None,
    notes: list[str],
) -> Reference:
    """Run the reference on every probe, other sizes last."""
    planned = fed.probes or fed.with_samples(
        thorough_probes(fed.args, fed.kwargs, seed=fed.seed, kinds=fed.kinds)
    )
    reference = Reference(ours.runner, fed.args, fed.kwargs, seed=fed.seed, planned=planned)
    if fed.probes:
        return reference

    def of_reference(index: int) -> InputSpec | None:
        return ours.declared[index] if ours.declared is not None else None

    if free is not None:
        axes, ranges = free.axes, free.ranges or {}
    else:
        axes, ranges = free_axes(fed.tensors, [(of_reference, ours.ranges), (adapted.spec_of, theirs.ranges)])
    guards = [inputs_accepted_by(side.program) for side in (ours, theirs) if side.program is not None]
    if isinstance(ours.runner, BoundsSizes):
        guards.append(ours.runner.accepts)
    guards.append(adapted.accepts)
    if theirs.declared is None:
        guards.append(runs_on(adapted.run))

    def accepts(args: Args, kwargs: Kwargs) -> bool:
        return all(guard(args, kwargs) for guard in guards)

    proposals = size_probes(
        fed.args,
        fed.kwargs,
        seed=fed.seed,
        dynamic_axes=axes,
        ranges=ranges,
        kinds=fed.kinds,
        listed=adapted.listed,
    )
    missed = reference.try_sizes(proposals, accepts)
    if not proposals:
        notes.append("compared at the example's size only: no axis is free on both sides")
    elif missed:
        notes.append(f"not compared at {', '.join(missed)}: nothing that both take and that gives numbers")
    return reference


def _judged(
    recorded: Recorded,
    candidate: Adapted,
    profile: Profile,
    fed: Supply,
    sides: list[Side],
    notes: list[str],
) -> Comparison:
    network = candidate.candidate
    quantised = "int8" in (sides[0].precision, sides[1].precision)
    precision = "int8" if quantised else sides[1].precision
    with phase(f"running {network.label}"):
        allowed = allowed_by(profile, recorded, precision)
        notes = [*notes, *allowed.notes]
        facts = Comparison(
            CANNOT_TELL,
            "",
            sides[0],
            sides[1],
            allowed.stated,
            recorded.seed,
            inputs=tuple(
                InputFact(name, tuple(tensor.shape), dtype_name(tensor.dtype), fed.kind(index))
                for index, (name, tensor) in enumerate(zip(fed.names, fed.tensors, strict=True))
            ),
            versions=versions((sides[0].runner, sides[1].runner)),
            inputs_hash=_hash(recorded),
        )
        in_float64 = None
        if isinstance(network.runner, ComputesInFloat64):
            exact = network.runner.in_float64

            def in_float64() -> Adapted:
                return Adapted(replace(network, runner=exact()), fed.names, fed.args, fed.kwargs)

        try:
            verdict = judge_candidate(
                recorded, candidate, profile, precision, allowed=allowed, in_float64=in_float64
            )
        except UnusableInput as error:
            return replace(facts, reason=str(error), notes=(*notes, *recorded.notes))
    status, reason = _status(verdict)
    return replace(
        facts,
        status=status,
        reason=reason,
        equivalence=verdict,
        probes=tuple(_probe_fact(record.probe, verdict) for record in allowed.recorded.records),
        blind=verdict.blind,
        inputs_hash=_hash(recorded),
        notes=tuple(dict.fromkeys([*notes, *verdict.notes])),
        seconds={
            record.probe.name: record.seconds + verdict.seconds.get(record.probe.name, 0.0)
            for record in allowed.recorded.records
        },
    )


def _status(verdict: Equivalence) -> tuple[str, str]:
    if verdict.untold:
        return CANNOT_TELL, verdict.untold
    if not verdict.passed:
        # Where not one output could be held against the reference's, the two do not fit together.
        return (DIFFERENT if verdict.outputs else CANNOT_TELL), verdict.reason
    return SAME, ""


def _probe_fact(probe: Probe, verdict: Equivalence) -> ProbeFact:
    entries = [entry for entry in verdict.outputs if entry.probe == probe.name and not entry.passed]
    failure = verdict.broken_probes.get(probe.name, "") or "; ".join(map(describe, entries))
    aside = verdict.set_aside.get(probe.name, "")
    return ProbeFact(probe.name, probe.group, not failure, dict(probe.sizes), failure, aside)


def _hash(recorded: Recorded) -> str:
    digest = hashlib.sha256()
    for record in recorded.records:
        digest.update(input_hash(record.probe).encode())
    return digest.hexdigest()


def _label(given: object) -> str:
    if given is None:
        return "-"
    if isinstance(given, (str, Path)):
        return str(given)
    name = getattr(given, "name", None)
    return name if isinstance(name, str) else type(given).__name__
