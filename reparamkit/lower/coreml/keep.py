"""What stays in float32 in a float16 package.

A choice is a function of the origin of an operator, its module's path ("stages.0.1.reparam_conv") or that and
the operator's name ("stages.0.1.add"), as `reparamkit.lower.coreml.names` gives it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from torch.export import ExportedProgram

from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.convert import Keep
from reparamkit.lower.coreml.names import operator_origins
from reparamkit.lower.coreml.options import CoreMlOptions


def keep_float32(patterns: Iterable[str]) -> Keep:
    """Keep what has an origin that matches one of the patterns, as in a shell; a path keeps all below it."""
    chosen = tuple(patterns)

    def keep(origin: str) -> bool:
        return any(
            fnmatch.fnmatchcase(origin, pattern) or fnmatch.fnmatchcase(origin, f"{pattern}.*")
            for pattern in chosen
        )

    return keep


def kept(options: CoreMlOptions, program: ExportedProgram) -> tuple[Keep | None, list[str]]:
    """The choice that the options make for a program, and notes on it.

    Raises:
        UnusableInput: a pattern that nothing matches, with some of the paths that there are.
    """
    if isinstance(options.keep_float32, str):
        return None, []
    origins = operator_origins(program)
    for pattern in options.keep_float32:
        if not any(map(keep_float32([pattern]), origins)):
            raise UnusableInput(
                f"nothing in the folded network matches {pattern!r}, which was to stay in float32; there are "
                + _some(origins)
            )
    chosen = keep_float32(options.keep_float32)
    count = sum(map(chosen, origins))
    return chosen, [f"{count} of {len(origins)} operators stay in float32: {', '.join(options.keep_float32)}"]


def _some(origins: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(origins))
    return ", ".join(distinct[:8]) + (" …" if len(distinct) > 8 else "")
