"""Weights in ``.safetensors`` files: tensors and names, and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from reparamkit.errors import UnusableInput


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file, on the CPU.

    Raises UnusableInput where it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UnusableInput(f"the weights in {path} cannot be read: {text}") from error


def as_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """The content of a file: all tensors, each with storage of its own.

    Two names of one tensor are both written: reading them gives two equal tensors, which fit the network
    that shares them.
    """
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
