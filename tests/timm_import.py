"""`import timm` where torchvision's compiled operators are missing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


def import_timm() -> ModuleType:
    """timm, imported once.

    torchvision registers fake kernels for operators of its compiled library when it is imported. Where
    that library is absent the registration raises; those registrations, and no others, are skipped.
    """
    if "timm" in sys.modules:
        return sys.modules["timm"]
    register = torch.library.register_fake

    def tolerant(op: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        kwargs["_stacklevel"] = kwargs.get("_stacklevel", 1) + 1
        registered: Callable[..., Any] = register(op, *args, **kwargs)
        return registered

    torch.library.register_fake = tolerant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
    finally:
        torch.library.register_fake = register
    return timm
