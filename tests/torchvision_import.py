"""`import torchvision` where its compiled operators are missing."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from tests.timm_import import import_timm


def import_torchvision() -> ModuleType:
    """torchvision with its models. timm imports torchvision, so `import_timm` gets round what is missing."""
    import_timm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision")
