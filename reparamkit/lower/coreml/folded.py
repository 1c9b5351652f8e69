"""A folded network as a Core ML package, behind the normalisation of an image where one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.lower.coreml.image_network import behind_an_image
from reparamkit.lower.coreml.network import FoldedNetwork
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.coreml.save import Subject, save_coreml

if TYPE_CHECKING:
    from reparamkit.lower.saved import Saved
    from reparamkit.result import Folded


def save_as_package(
    folded: Folded,
    path: Path,
    options: CoreMlOptions | None,
    before_it_appears: Callable[[], object],
    *,
    allow_untold: bool = False,
) -> Saved:
    """Write a folded network as an `.mlpackage`; errors as for `save_coreml`."""
    options = options or CoreMlOptions()
    subject: Subject = FoldedNetwork(folded)
    if options.image is not None:
        subject = behind_an_image(folded, options.image)
    saved = save_coreml(
        subject, path, options, before_it_appears=before_it_appears, allow_untold=allow_untold
    )
    return replace(saved, notes=(*folded._notes_on_sizes, *saved.notes))
