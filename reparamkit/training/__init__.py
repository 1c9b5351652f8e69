"""Train, validate and pre-train networks that are going to be folded. Needs the extra ``train``.

    import reparamkit as rk

    result = rk.training.train("repnets_toy", data="digits", out="run", epochs=10)
    folded = rk.fold(rk.load("run/best_ema"))

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reparamkit.training.before_after import BeforeAfter, before_and_after
    from reparamkit.training.config import Config, PretrainConfig
    from reparamkit.training.data import Data
    from reparamkit.training.fcmae import pretrain
    from reparamkit.training.run import Trained
    from reparamkit.training.trainer import train
    from reparamkit.training.validation import Validation, validate

_HOMES = {
    "BeforeAfter": "before_after",
    "Config": "config",
    "Data": "data",
    "PretrainConfig": "config",
    "Trained": "run",
    "Validation": "validation",
    "before_and_after": "before_after",
    "pretrain": "fcmae",
    "train": "trainer",
    "validate": "validation",
}

__all__ = [
    "BeforeAfter",
    "Config",
    "Data",
    "PretrainConfig",
    "Trained",
    "Validation",
    "before_and_after",
    "pretrain",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reparamkit.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"reparamkit.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
