"""reparamkit: fold structural re-parameterization out of any PyTorch network, and prove that nothing changed.

    import reparamkit as rk

    folded = rk.fold(model, example_inputs)
    folded.save("net.onnx")

Names are imported when they are first used, so that `import reparamkit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reparamkit import models, training
    from reparamkit.api import fold, inspect
    from reparamkit.capture.source import Source, load
    from reparamkit.engine.findings import Fold, Refusal
    from reparamkit.errors import (
        CannotCapture,
        MissingExtra,
        NotEquivalent,
        NothingExpanded,
        ReparamkitError,
        UntrustedPickle,
        UnusableInput,
    )
    from reparamkit.folded import Folded, Inspection
    from reparamkit.lower.coreml.options import CoreMlOptions, ImageInput
    from reparamkit.parts import Part
    from reparamkit.training.expand import ExpansionReport, expand, expansion_report
    from reparamkit.verify import Equivalence, assert_equivalent, check

__version__ = "0.1.0"

_HOMES = {
    "Folded": "reparamkit.folded",
    "Inspection": "reparamkit.folded",
    "fold": "reparamkit.api",
    "inspect": "reparamkit.api",
    "CoreMlOptions": "reparamkit.lower.coreml.options",
    "ImageInput": "reparamkit.lower.coreml.options",
    "Source": "reparamkit.capture.source",
    "load": "reparamkit.capture.source",
    "Fold": "reparamkit.engine.findings",
    "Refusal": "reparamkit.engine.findings",
    "Part": "reparamkit.parts",
    "ExpansionReport": "reparamkit.training.expand",
    "expand": "reparamkit.training.expand",
    "expansion_report": "reparamkit.training.expand",
    "Equivalence": "reparamkit.verify",
    "assert_equivalent": "reparamkit.verify",
    "check": "reparamkit.verify",
    "CannotCapture": "reparamkit.errors",
    "MissingExtra": "reparamkit.errors",
    "NotEquivalent": "reparamkit.errors",
    "NothingExpanded": "reparamkit.errors",
    "ReparamkitError": "reparamkit.errors",
    "UntrustedPickle": "reparamkit.errors",
    "UnusableInput": "reparamkit.errors",
}

__all__ = [
    "CannotCapture",
    "CoreMlOptions",
    "Equivalence",
    "ExpansionReport",
    "Fold",
    "Folded",
    "ImageInput",
    "Inspection",
    "MissingExtra",
    "NotEquivalent",
    "NothingExpanded",
    "Part",
    "Refusal",
    "ReparamkitError",
    "Source",
    "UntrustedPickle",
    "UnusableInput",
    "__version__",
    "assert_equivalent",
    "check",
    "expand",
    "expansion_report",
    "fold",
    "inspect",
    "load",
    "models",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in ("models", "training"):
        return importlib.import_module(f"reparamkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'reparamkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
