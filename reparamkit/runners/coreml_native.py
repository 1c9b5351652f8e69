"""Runs an .mlpackage under Core ML itself, on the CPU. Core ML is a part of macOS and runs nowhere else."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.mil.graph import MilInput
from reparamkit.runners.base import NamedTensors
from reparamkit.runners.ml_program import ProgramFile
from reparamkit.support.quiet import quiet
from reparamkit.support.text import one_line


class CoreMlNativeRunner(ProgramFile):
    """An .mlpackage, compiled once by Core ML.

    Raises:
        MissingExtra: coremltools is not installed.
        UnusableInput: this is not macOS, or Core ML cannot open the file.
    """

    name = "Core ML"

    def __init__(self, path: Path) -> None:
        if platform.system() != "Darwin":
            raise UnusableInput(
                f"cannot run {path} under Core ML: Core ML is a part of macOS, and this is "
                f"{platform.system()}; evaluate the program instead (--coreml-runtime evaluate)"
            )
        super().__init__(path)
        try:
            with quiet():
                import coremltools

                self._model = coremltools.models.MLModel(
                    str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY
                )
        except ModuleNotFoundError:
            raise MissingExtra("coremltools", "coreml", "running a Core ML model") from None
        except Exception as error:
            raise UnusableInput(f"Core ML cannot open {path}: {one_line(error)}") from error

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the file's names; inputs are matched as `match_inputs` does.

        Raises:
            UnusableInput: the file takes other tensors, or an image input gets what is no pixels.
        """
        fed = self.feed(args, kwargs)
        given = {
            entry.name: _image(fed[entry.name], entry) if entry.image else fed[entry.name].numpy()
            for entry in self.program.inputs
        }
        with quiet():
            predictions = self._model.predict(given)
        return [(name, self._tensor(predictions[name])) for name in self.output_names]

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, dict):
            # A classifier's probabilities, under their labels.
            by_label = {str(label): float(share) for label, share in value.items()}
            return torch.tensor([[by_label[label] for label in self.program.labels]])
        array = np.asarray(value)
        if array.dtype == np.uint8:
            # An image: (height, width) or (height, width, channels).
            array = array[None] if array.ndim == 2 else array[..., :3].transpose(2, 0, 1)
            return torch.from_numpy(array[None].astype(np.float32))
        return torch.from_numpy(array)


def _image(pixels: torch.Tensor, entry: MilInput) -> Any:
    """Pixels of shape (1, channels, height, width) as the image that `predict` takes."""
    from PIL import Image

    if bool((pixels != pixels.round().clamp(0, 255)).any()):
        raise UnusableInput(
            f"the image input {entry.name!r} takes whole numbers from 0 to 255 under Core ML; describe it as "
            f"an image (--input {entry.name}:{'x'.join(map(str, pixels.shape))}:float32:image)"
        )
    array = pixels[0].to(torch.uint8).numpy()
    if entry.image == "GRAYSCALE":
        return Image.fromarray(array[0], "L")
    if entry.image == "BGR":
        array = array[::-1]
    return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)), "RGB")
