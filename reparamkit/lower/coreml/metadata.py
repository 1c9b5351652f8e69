"""What a package says of itself: `reparamkit.lower.facts`, and what it is for.

image           for an image input, as JSON: the network is fed (pixels / scale − mean) / std
"""

from __future__ import annotations

import json
from dataclasses import asdict

from reparamkit.lower import facts as lower_facts
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.facts import PREFIX, Facts
from reparamkit.support.version import __version__


def entries(facts: Facts, options: CoreMlOptions) -> dict[str, str]:
    """All user-defined metadata of a package, the caller's own included."""
    own = lower_facts.entries(facts)
    if options.image is not None:
        own[f"{PREFIX}image"] = json.dumps(asdict(options.image))
    return {**own, **options.metadata}


def description(facts: Facts, options: CoreMlOptions) -> str:
    """One line for whoever opens the package in Xcode."""
    folds = "1 fold" if facts.folds == 1 else f"{facts.folds} folds"
    return f"Folded by reparamkit {__version__} ({folds}, each proven in float64), {options.precision}."
