"""A package as it is compared with the network it was made of.

Core ML has no truth values among a package's outputs: they are the numbers 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reparamkit.runners.base import NamedTensors, Runner


class WithTruthValues:
    """A runner whose outputs are truth values where the reference's are and it gives nothing but 0 and 1."""

    structured = False

    def __init__(self, runner: Runner, dtypes: Sequence[torch.dtype]) -> None:
        self.name = runner.name
        self._runner = runner
        self._dtypes = list(dtypes)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        outputs = self._runner.run(args, kwargs)
        if len(outputs) != len(self._dtypes):
            return outputs
        return [
            (name, values.bool() if wanted is torch.bool and _is_truth(values) else values)
            for (name, values), wanted in zip(outputs, self._dtypes, strict=True)
        ]


def _is_truth(values: torch.Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())
