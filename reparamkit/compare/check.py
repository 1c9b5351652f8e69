"""The public question: do these two compute the same function?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from reparamkit.compare.compare import compare
from reparamkit.compare.inputs.sizes import DynamicAxes, FreeSizes, Ranges
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.loading.wrappers import unwrapped, usable_inputs
from reparamkit.support.inputs import normalise_inputs
from reparamkit.support.surroundings import undisturbed


@undisturbed()
def check(
    reference: object,
    candidate: object,
    inputs: object,
    *,
    seed: int = 0,
    dynamic_axes: DynamicAxes | None = None,
    ranges: Ranges | None = None,
    outputs: int | Sequence[str] | None = None,
) -> Equivalence:
    """Compare two networks on inputs that expose mistakes, and say whether they are the same function.

    The error allowed is not a fixed tolerance: it is four times the reference's own rounding error, measured
    against its float64 run, plus a few ulp. `reparamkit.compare.float64.reference` has the formula. A
    candidate in a lower precision than the reference is judged by that precision, and the notes say so. It
    is the verdict of ``reparamkit check`` for the same pair.

    Args:
        reference: an `nn.Module`, a `torch.export.ExportedProgram`, or the path of a file (`.onnx` runs under
            ONNX Runtime). It is not changed.
        candidate: likewise.
        inputs: a tensor, a tuple (positional) or a dict (keywords), as the reference's forward takes them.
            They are tried too, and their shapes and dtypes are those of the probes.
        seed: reproduces the probes.
        dynamic_axes: axes to try at other sizes: flat tensor index -> axis -> symbol; axes of one symbol
            change together. By default those that neither of the two fixes.
        ranges: symbol -> (smallest, largest size), inclusive.
        outputs: which of the reference's outputs the candidate has, where not all: how many of the first, or
            their names, as in `reparamkit.fold`.

    Raises:
        UnusableInput: it cannot be told: something cannot be opened or run, the two take different
            inputs, or no output of the reference is comparable or depends on the input.
    """
    args, kwargs = usable_inputs(*normalise_inputs(inputs))
    reference, candidate = (
        unwrapped(side)[0] if isinstance(side, nn.Module) else side for side in (reference, candidate)
    )
    free = FreeSizes(dynamic_axes, ranges) if dynamic_axes is not None else None
    comparison = compare(
        reference,
        candidate,
        inputs=kwargs or args,
        free=free,
        seed=seed,
        where=False,
        outputs=outputs,
        strict=True,
    ).comparison
    verdict = comparison.equivalence
    if verdict is None or not (comparison.passed or verdict.differs):
        raise UnusableInput(f"cannot tell whether the two are the same: {comparison.reason}")
    return verdict


def assert_equivalent(
    reference: object,
    candidate: object,
    inputs: object,
    *,
    seed: int = 0,
    dynamic_axes: DynamicAxes | None = None,
    ranges: Ranges | None = None,
    outputs: int | Sequence[str] | None = None,
) -> Equivalence:
    """As `check`, but raises where the two differ.

    Raises:
        NotEquivalent: they differ; the message names the worst place, `equivalence` holds the numbers.
        UnusableInput: as `check`.
    """
    verdict = check(
        reference, candidate, inputs, seed=seed, dynamic_axes=dynamic_axes, ranges=ranges, outputs=outputs
    )
    if not verdict.passed:
        raise NotEquivalent(verdict.summary(), verdict)
    return verdict
