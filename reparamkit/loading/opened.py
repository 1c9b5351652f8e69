"""What opening gives: a network, and what is known about where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Source:
    """A model and what is known about where it came from.

    `name` is the stem for output files and `path` the file it came from, if any. `example_inputs` and
    `example_kwargs` are what the file or the network says to call it with (float32, zero mean, shape
    (N, C, H, W) for a reference model); None where nothing is known. `inferred` is who says so, where the
    network was asked rather than the file ("its pretrained_cfg"). `notes` are for the report. `base` is the
    network without the adapter that `model` has in it; None without one.
    """

    model: nn.Module | torch.export.ExportedProgram | torch.jit.ScriptModule
    name: str
    path: Path | None
    example_inputs: tuple[Any, ...] | None
    example_kwargs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inferred: str = ""
    base: nn.Module | None = None

    @property
    def inferred_note(self) -> str:
        """Which input was inferred, and from what, for whoever uses it; "" where none was."""
        if not self.inferred or self.example_inputs is None:
            return ""
        shapes = ", ".join("x".join(map(str, x.shape)) for x in self.example_inputs if hasattr(x, "shape"))
        return f"the input is {shapes}, by {self.inferred}; --input gives another"
