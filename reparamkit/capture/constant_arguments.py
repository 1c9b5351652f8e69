"""Arguments that are no tensors: constants of the capture, whose graph answers for no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn


class ConstantArguments(nn.Module):
    """Takes the arguments that are not tensors and raises `ValueError` if one is not as captured."""

    _is_impure = True  # so that fx keeps the call, whose result nobody reads

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        super().__init__()
        self.names, self.values = tuple(names), tuple(values)

    def forward(self, *given: Any) -> None:
        """As many arguments as there are `values`; nothing is computed."""
        for name, captured, value in zip(self.names, self.values, given, strict=True):
            if type(value) is not type(captured) or value != captured:
                raise ValueError(
                    f"the network was captured with {name} = {captured!r}, which is in its graph, and was "
                    f"given {value!r}; fold it with that value"
                )


def constant_nodes(inputs: Sequence[fx.Node]) -> list[fx.Node]:
    """The inputs that are plain values."""
    return [n for n in inputs if not isinstance(n.meta.get("val"), Tensor | torch.SymInt | torch.SymFloat)]


def constant_arguments(inputs: Sequence[fx.Node]) -> ConstantArguments | None:
    """What the capture took for a constant among a program's inputs; None if all are tensors."""
    nodes = constant_nodes(inputs)
    if not nodes:
        return None
    return ConstantArguments([n.name for n in nodes], [n.meta.get("val") for n in nodes])
