"""What other libraries fold by themselves, to be compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from reparamkit.support.quiet import quiet


def _timm(model: Any) -> nn.Module:
    from timm.utils.model import reparameterize_model  # type: ignore[import-not-found,unused-ignore]

    folded: nn.Module = reparameterize_model(model, inplace=True)
    return folded


def _ultralytics(model: Any) -> nn.Module:
    folded: nn.Module = model.fuse(verbose=False)
    return folded


OWN_FOLDS: dict[str, Callable[[Any], nn.Module]] = {"timm": _timm, "ultralytics": _ultralytics}
"""Package of the network's class -> the fold that it offers, on a copy that it may change."""


def own_fold(model: nn.Module) -> nn.Module | None:
    """The network after its own library's fold; None if there is none, or if it changes nothing.

    Raises:
        Exception: whatever the library's fold raises.
    """
    fold = OWN_FOLDS.get(type(model).__module__.partition(".")[0])
    if fold is None:
        return None
    with quiet():
        folded = fold(copy.deepcopy(model)).eval()
    return folded if _kinds(folded) != _kinds(model) else None


def _kinds(model: nn.Module) -> list[str]:
    return [f"{name}: {type(module).__qualname__}" for name, module in model.named_modules()]
