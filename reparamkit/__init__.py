"""reparamkit: fold structural re-parameterization out of any PyTorch network, and prove that nothing changed.

    import reparamkit as rk

    folded = rk.fold(model, example_inputs)
    folded.save("net.onnx")

Names are imported when they are first used, so that `import reparamkit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reparamkit.loading import registry as _registry
from reparamkit.support.version import __version__

if TYPE_CHECKING:
    from reparamkit import models, training
    from reparamkit.api import fold, inspect
    from reparamkit.compare.check import assert_equivalent, check
    from reparamkit.compare.verdict import Equivalence
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
    from reparamkit.into.load import Loaded, load_into
    from reparamkit.into.program import fold_program
    from reparamkit.loading.source import Source, load
    from reparamkit.lower.coreml.options import CoreMlOptions, ImageInput
    from reparamkit.result import Folded, Inspection
    from reparamkit.submodules.search import Submodule
    from reparamkit.submodules.search import Submodule as Part
    from reparamkit.training.expand import ExpansionReport, expand, expansion_report

# Who builds the networks of names, and opens folders of training: modules by name, imported when asked for.
_registry.register("", "reparamkit.models.sources")
_registry.register("timm", "reparamkit.loading.libraries.timm", "timm")
_registry.register("hf-hub", "reparamkit.loading.libraries.timm", "timm")
_registry.register("torchvision", "reparamkit.loading.libraries.torchvision", "torchvision")
_registry.register("transformers", "reparamkit.loading.libraries.transformers", "transformers")
_registry.register("ultralytics", "reparamkit.loading.libraries.ultralytics", "ultralytics")
_registry.register_checkpoints("reparamkit.training.sources")

_NAMES = {
    "reparamkit.result": ("Folded", "Inspection"),
    "reparamkit.api": ("fold", "inspect"),
    "reparamkit.lower.coreml.options": ("CoreMlOptions", "ImageInput"),
    "reparamkit.into.load": ("Loaded", "load_into"),
    "reparamkit.into.program": ("fold_program",),
    "reparamkit.loading.source": ("Source", "load"),
    "reparamkit.engine.findings": ("Fold", "Refusal"),
    "reparamkit.submodules.search": ("Submodule",),
    "reparamkit.training.expand": ("ExpansionReport", "expand", "expansion_report"),
    "reparamkit.compare.verdict": ("Equivalence",),
    "reparamkit.compare.check": ("assert_equivalent", "check"),
    "reparamkit.errors": (
        "CannotCapture",
        "MissingExtra",
        "NotEquivalent",
        "NothingExpanded",
        "ReparamkitError",
        "UntrustedPickle",
        "UnusableInput",
    ),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
_EARLIER_NAMES = {"Part": "Submodule"}
"""Names of the public API that go on working."""

__all__ = [
    "CannotCapture",
    "CoreMlOptions",
    "Equivalence",
    "ExpansionReport",
    "Fold",
    "Folded",
    "ImageInput",
    "Inspection",
    "Loaded",
    "MissingExtra",
    "NotEquivalent",
    "NothingExpanded",
    "Part",
    "Refusal",
    "ReparamkitError",
    "Source",
    "Submodule",
    "UntrustedPickle",
    "UnusableInput",
    "__version__",
    "assert_equivalent",
    "check",
    "expand",
    "expansion_report",
    "fold",
    "fold_program",
    "inspect",
    "load",
    "load_into",
    "models",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in ("models", "training"):
        return importlib.import_module(f"reparamkit.{name}")
    name = _EARLIER_NAMES.get(name, name)
    if name not in _HOMES:
        raise AttributeError(f"module 'reparamkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
