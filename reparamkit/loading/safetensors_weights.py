"""Weights out of and into files of safetensors: tensors and their names, and nothing that could run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading.door.files import steady
from reparamkit.loading.door.memory import check_room
from reparamkit.loading.door.safetensors_file import check_safetensors
from reparamkit.support.text import one_line


def read_shards(files: Iterable[Path]) -> dict[str, Tensor]:
    """Every tensor of the files, on the CPU, in the types that they are stored in.

    Raises UnusableInput where one is damaged, where two have a name in common, or where they do not fit into
    memory together; MissingExtra without the package safetensors.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise MissingExtra("safetensors", None, "a file of safetensors") from None
    files = list(files)
    state: dict[str, Tensor] = {}
    total = 0
    for file in files:
        entries = check_safetensors(file)
        total += sum(entry.end - entry.begin for entry in entries.values())
        check_room(total, f"{files[0].parent} has tensors of")
        twice = sorted(entries.keys() & state.keys())
        if twice:
            raise UnusableInput(f"{file} holds {twice[0]!r}, which another file of {file.parent} holds too")
        try:
            with steady([file]):
                # copies: what lies in the file may change while it is used
                state |= {name: tensor.clone() for name, tensor in load_file(file).items()}
        except (OSError, SafetensorError, AttributeError) as error:
            text = getattr(error, "strerror", None) or one_line(error, 200)
            raise UnusableInput(f"the weights in {file} cannot be read: {text}") from error
    return state


def as_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """The content of a file: all tensors, each with storage of its own.

    Two names of one tensor are both written: reading them gives two equal tensors, which fit the network
    that shares them.
    """
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
