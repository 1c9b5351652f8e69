"""What the comparison with the folded copy has to know of a network that was never captured.

It may return something else for other data (an early exit returns more), and nothing says which sizes it
takes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from reparamkit.compare.inputs.sizes import ROLES, FreeSizes
from reparamkit.runners.base import NamedTensors
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves
from reparamkit.support.isolation import call_untouched


class SteadyRunner(TorchRunner):
    """Rejects inputs for which the network returns other outputs than it did the first time."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._names: list[str] | None = None

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        outputs = super().run(args, kwargs)
        names = [name for name, _ in outputs]
        if self._names is None:
            self._names = names
        if names != self._names:
            raise ValueError(f"it returns {len(names)} outputs there, named otherwise than for the example")
        return outputs


def proposed_sizes(folded: nn.Module, args: Args, kwargs: Kwargs) -> FreeSizes:
    """The axes that are a batch or an extent in most networks.

    It is a proposal. The original may reject a size, and so may the copy, with the `ValueError` of a part
    that was captured for others; such a size is passed over.
    """
    axes: dict[int, dict[int, str]] = {}
    for index, (_, tensor) in enumerate(tensor_leaves(args, kwargs)):
        if tensor.ndim >= 2:
            axes[index] = {0: "batch"} | ROLES.get(tensor.ndim, {})

    def accepts(args: Args, kwargs: Kwargs) -> bool:
        try:
            call_untouched(folded, args, kwargs)
        except ValueError:
            return False
        except Exception:
            return True  # for the comparison to tell
        return True

    return FreeSizes(axes, accepts=accepts)
