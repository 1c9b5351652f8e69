"""What the loop asks of that which is trained: `train` and `pretrain` differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Call = Callable[..., Any]


@dataclass(frozen=True)
class Best:
    """A checkpoint that is kept when a column of the metrics is better than ever; the second settles ties."""

    folder: str
    column: str
    higher_is_better: bool
    tie: str

    def is_better(self, row: dict[str, float], than: dict[str, float] | None) -> bool:
        """Whether the row is better than the best so far; a NaN never is."""
        if row[self.column] != row[self.column]:
            return False
        if than is None or row[self.column] == than[self.column]:
            return than is None or row[self.tie] < than[self.tie]
        return (row[self.column] > than[self.column]) is self.higher_is_better


class Task(Protocol):
    """A network with its loss and its validation.

    Attributes:
        module: what is trained.
        best: which checkpoints are kept beside the last.
    """

    module: nn.Module
    best: tuple[Best, ...]

    def loss(self, call: Call, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The loss of a micro-batch, a scalar, and how many images were right, where that means something.

        `call` runs the network; images are (N, 3, S, S) of bytes, labels (N).
        """
        ...

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Scores of the network, or of the average of its weights, on the validation images."""
        ...
