"""Opening a training checkpoint as a network, for whoever opens networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.training.extra import require_extra

if TYPE_CHECKING:
    from reparamkit.loading.source import Source


def open_source(path: Path, *, model: str | None = None, trusted: bool = False) -> Source:
    """The network of a checkpoint, or of a run's best one, with the average of its weights if there is one.

    `model` and `trusted` say whether a callable that it names may run (`restored`).

    Raises UnusableInput where it is damaged or cannot be built, `UntrustedPickle` where code would have to
    run, MissingExtra without safetensors.
    """
    require_extra("opening a training checkpoint", ("safetensors",))
    from reparamkit.training.checkpoint import open_checkpoint
    from reparamkit.training.restored import restored

    return restored(open_checkpoint(path), code=model, trusted=trusted)
