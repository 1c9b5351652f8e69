"""Compare under Core ML, and the evaluator with Core ML as well: what it says elsewhere is worth as much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from reparamkit.compare.compare import Compared, compare
from reparamkit.compare.comparison import CANNOT_TELL, SAME
from reparamkit.errors import UnusableInput
from reparamkit.runners.open import NATIVE

_SUFFIXES = (".mlpackage", ".mlmodel")


def compare_both(reference: object, candidate: str | Path, **settings: Any) -> Compared:
    """Compare a Core ML program under Core ML itself, then its evaluation with that.

    Args:
        reference, candidate, settings: as for `compare`, without `coreml`. Where the candidate is no Core ML
            file, nothing but that comparison is made.

    Returns:
        The comparison of the candidate under Core ML with the reference, with a note on the evaluator. Where
        the two agree and the evaluator does not agree with Core ML, the answer is "cannot tell".
    """
    compared = compare(reference, candidate, coreml=NATIVE, **settings)
    path = Path(candidate)
    if path.suffix not in _SUFFIXES or compared.supply is None or compared.candidate is None:
        return compared
    from reparamkit.runners.coreml import CoreMlRunner

    try:
        evaluated = CoreMlRunner(path)
    except UnusableInput as error:
        return _with(compared, False, str(error))
    _, inputs = compared.candidate.converted(compared.supply.args, compared.supply.kwargs)
    own = compare(
        compared.candidate.candidate.runner,
        evaluated,
        inputs=inputs,
        seed=compared.supply.seed,
        where=False,
    ).comparison
    if own.status == SAME:
        return _with(compared, True, "the evaluator agrees with Core ML on this file")
    return _with(compared, False, f"the evaluator does not agree with Core ML on this file: {own.reason}")


def _with(compared: Compared, agree: bool, note: str) -> Compared:
    comparison = compared.comparison
    if agree or comparison.status != SAME:
        changed = replace(comparison, notes=(*comparison.notes, note))
    else:
        changed = replace(comparison, status=CANNOT_TELL, reason=note)
    return replace(compared, comparison=changed)
