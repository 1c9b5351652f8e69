"""Random hostile networks: one for each seed, the same for the same seed.

Every network has a stem in which something folds, and one to three things that a capture may get wrong.
Themes take turns: any run of `len(THEMES)` seeds has each theme at its head.
"""

from __future__ import annotations

import random
from typing import Any

from torch import nn

# the ideas enter themselves
from tests.hostile import branches, layers, shapes, shared, values, writes  # noqa: F401
from tests.hostile.sample import Sample
from tests.hostile.signatures import finish, start
from tests.hostile.writer import IDEAS, Writer

THEMES = (
    "branch",
    "squeeze",
    "broadcast",
    "view",
    "inplace",
    "branch",
    "state",
    "values",
    "operators",
    "types",
    "modes",
)
FOLLOWING = (*THEMES, "layers", "layers", "layers")
_TRIES = 12


def network(seed: int) -> tuple[nn.Module, Any]:
    """A network in eval mode, and its example as `fold` takes it."""
    drawn = sample(seed)
    return drawn.module(), drawn.example()


def sample(seed: int) -> Sample:
    """The network of a seed as text, with everything that a comparison has to know."""
    rng = random.Random(seed)
    w = start(seed, rng)
    _grow(w, THEMES[seed % len(THEMES)])
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        _grow(w, rng.choice(FOLLOWING))
    finish(w)
    drawn = w.sample()
    if rng.random() < 0.15:
        drawn.options = {"merge_siblings": True}
    if rng.random() < 0.08:
        drawn.options["dynamic"] = rng.choice(["batch", "batch", False])
    drawn.wide = rng.random() < (0.7 if w.coarse else 0.2)
    return drawn


def _grow(w: Writer, theme: str) -> None:
    for _ in range(_TRIES):
        if w.write(w.pick(IDEAS[theme])):
            return
