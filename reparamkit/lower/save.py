"""Save a network under the formats that files' suffixes name, and only once every file has proved itself.

stage all ─▶ verify all ─▶ put all in place
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from reparamkit.capture.program import InParts
from reparamkit.errors import CannotCapture
from reparamkit.lower.files import check_writable, staged
from reparamkit.lower.formats import format_of
from reparamkit.lower.lowering import Lowering
from reparamkit.lower.request import Request
from reparamkit.lower.saved import Saved
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
            why = lowering.captured.why.reason
            raise CannotCapture(
                f"cannot write {path}: the network as a whole cannot be exported: {why}. What was folded are "
                "parts of it, inside a copy of the module, which can be saved whole under the suffix .pt: "
                f"{path.with_suffix('.pt')}",
                why,
            )
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
