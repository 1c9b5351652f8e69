"""Sources that are another network each time: a callable that draws new weights whenever it is called.

Such a source differs from its own fold, which holds the weights of an earlier call, and nothing is wrong with
either. So where two networks differ, and one of them was built by a callable, that is called once more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.compare.network import Network
from reparamkit.compare.randomness import equal
from reparamkit.loading.arguments import as_arguments
from reparamkit.loading.construct import construct, is_address
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.isolation import random_state_kept


def drawn_anew(
    given: object, opened: Network | None, *, model_args: str | Mapping[str, Any] | None = None
) -> str:
    """Why two calls of a source give two networks, in words; empty where they do not, or it is no callable.

    Args:
        given: what the user named.
        opened: what the first call gave.
        model_args: as in `reparamkit.load`.
    """
    if not isinstance(given, str) or not is_address(given) or Path(given).exists():
        return ""
    if opened is None or not isinstance(opened.runner, TorchRunner):
        return ""
    try:
        with random_state_kept():
            again = construct(given, as_arguments(model_args))
    except Exception:
        return ""
    if not isinstance(again, nn.Module) or _same_weights(again, opened.runner.module):
        return ""
    return (
        f"{given} draws new weights at each call, so it is another network each time: seed it "
        f"(torch.manual_seed in the callable), or give a file of weights"
    )


def _same_weights(left: nn.Module, right: nn.Module) -> bool:
    pairs = itertools.zip_longest(_weights(left), _weights(right))
    return all(a is not None and b is not None and equal(a, b) for a, b in pairs)


def _weights(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
