"""Runs the .mlpackage of a Core ML program by evaluating it with torch, on any system."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate, missing
from reparamkit.runners.base import NamedTensors
from reparamkit.runners.jitter import jitter
from reparamkit.runners.ml_program import ProgramFile


class CoreMlRunner(ProgramFile):
    """An .mlpackage, read once and evaluated (`reparamkit.mil`).

    Args:
        path: the folder.
        arithmetic: as in `reparamkit.mil.evaluate`: None computes in the types that the file declares.

    Raises:
        MissingExtra: coremltools is not installed.
        UnusableInput: the file cannot be read, is no ML program, or holds an operator that is not known here.
    """

    name = "Core ML program, evaluated"

    def __init__(self, path: Path, arithmetic: torch.dtype | None = None) -> None:
        super().__init__(path)
        unknown = missing(self.program)
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UnusableInput(f"cannot verify {path}: {unknown[0]}{more} is not known to the evaluator")
        self.arithmetic = arithmetic

    def jittered(self, seed: int) -> CoreMlRunner:
        """The same program with every floating-point weight off by a few ulp."""
        generator = torch.Generator().manual_seed(seed)
        moved = copy.copy(self)
        # A number without axes is a setting; a scale that is a little off would give another size.
        constants = {
            name: jitter(value, generator) if isinstance(value, torch.Tensor) and value.dim() else value
            for name, value in self.program.constants.items()
        }
        moved.program = dataclasses.replace(self.program, constants=constants)
        return moved

    def in_float64(self) -> CoreMlRunner:
        """The same file, computed in float64 from its weights as they are stored."""
        other = copy.copy(self)
        other.arithmetic = torch.float64
        return other

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the file's names and in its types; inputs are matched as `match_inputs` does.

        Integers are narrowed to the file's and booleans become its numbers.

        Raises:
            UnusableInput: the file takes other tensors, or these sizes or values are not allowed.
        """
        fed = self.feed(args, kwargs)
        with torch.no_grad():
            return list(evaluate(self.program, fed, self.arithmetic).items())
