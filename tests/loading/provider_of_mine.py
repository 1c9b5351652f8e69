"""A module that builds networks by name, as `reparamkit.loading.registry.Provider` has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from reparamkit.loading.registry import Named, Stored


def names() -> Iterable[str]:
    return ["net"]


def known(name: str) -> bool:
    return name == "net"


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    note = f"built with {dict(arguments)}, trusted {trusted}"
    return Named(nn.Linear(2, 2), name.replace(":", "-"), (torch.zeros(1, 2),), "its maker", (note,))
