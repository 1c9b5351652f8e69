"""Weights in ``.safetensors`` files: tensors and names, and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def as_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """The content of a file: all tensors, each with storage of its own.

    Two names of one tensor are both written: reading them gives two equal tensors, which fit the network
    that shares them.
    """
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
