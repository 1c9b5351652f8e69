"""Reference architectures in their training-time form, as published: what there is to fold."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reparamkit.models.families import ModelInfo
    from reparamkit.models.random_weights import randomize
    from reparamkit.models.registry import build, create, info, names

_HOMES = {
    "ModelInfo": "reparamkit.models.families",
    "build": "reparamkit.models.registry",
    "create": "reparamkit.models.registry",
    "info": "reparamkit.models.registry",
    "names": "reparamkit.models.registry",
    "randomize": "reparamkit.models.random_weights",
}

__all__ = ["ModelInfo", "build", "create", "info", "names", "randomize"]


def __getattr__(name: str) -> Any:
    # the names of all networks are known without torch
    if name not in _HOMES:
        raise AttributeError(f"module 'reparamkit.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
