"""Opening a training checkpoint as a network, for whoever opens networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import UnusableInput
from reparamkit.training.extra import require_extra

if TYPE_CHECKING:
    from reparamkit.loading.source import Source


def open_source(
    path: Path,
    *,
    model: str | None = None,
    trusted: bool = False,
    kind: str | None = None,
    arguments: str | None = None,
) -> Source:
    """The network of a checkpoint, or of a run's best one, with the average of its weights if there is one.

    `model` and `trusted` say whether a callable that it names may run (`restored`), `kind` which
    weights are meant ("ema" or "raw"). `arguments` have to be those that it was trained with.

    Raises UnusableInput where it is damaged or cannot be built, `UntrustedPickle` where code would have to
    run, MissingExtra without safetensors.
    """
    require_extra("opening a training checkpoint", ("safetensors",))
    from reparamkit.training.checkpoint import open_checkpoint
    from reparamkit.training.restored import restored

    checkpoint = open_checkpoint(path)
    if arguments and arguments != checkpoint.about.model_args:
        own = checkpoint.about.model_args or "none"
        raise UnusableInput(f"{path} was trained with the arguments {own}; leave out --model-args")
    return restored(checkpoint, kind, code=model, trusted=trusted)
