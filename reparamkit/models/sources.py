"""The reference networks for whoever opens networks by name; see `reparamkit.loading.registry.Provider`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.registry import Named, Stored
from reparamkit.models.folded_sizes import FOLDED_PARAMETERS


def names() -> Iterable[str]:
    """All of them, as the table of their sizes has them: it needs no torch."""
    return FOLDED_PARAMETERS


def known(name: str) -> bool:
    """Whether there is one of that name; case, ``-`` and ``_`` do not matter."""
    return name.strip().lower().replace("-", "_") in FOLDED_PARAMETERS


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    """The network in evaluation mode, with the weights or with random ones, and its example.

    Raises UnusableInput where there is none of that name, or where arguments or weights are another's.
    """
    from reparamkit.models import checkpoints, families
    from reparamkit.models.registry import create, info

    facts = info(name)
    notes: tuple[str, ...] = ()
    try:
        if stored is None:
            model = create(name, **arguments)
        else:
            canonical, family = families.resolve(name)
            model = families.on_meta(canonical, **arguments)
            notes = checkpoints.fit(stored.tensors, stored.where, canonical, family, model)
            model = model.float().eval()
    except TypeError as error:
        raise UnusableInput(f"--model-args: {facts.name} does not take them: {error}") from error
    return Named(model, name, facts.example_inputs(), notes=notes)
