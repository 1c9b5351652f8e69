"""Real inputs from files: ``.npz``, ``.npy``, ``.pt``, or a folder of them, one sample a file.

    .npz    arrays called as the network's inputs are, or arr_0, arr_1, … in their order
    .npy    the only input
    .pt     a tensor, a tuple (inputs in order), a dict (by name), or a list of such: several samples

Nothing of a file is run: ``.npz`` and ``.npy`` without pickles, ``.pt`` with ``weights_only=True``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.door.arrays import read_npy, read_npz
from reparamkit.loading.door.files import exists, in_words, regular
from reparamkit.loading.door.memory import check_room
from reparamkit.loading.weights import load_weights_only
from reparamkit.support.inputs import Args, Kwargs

SUFFIXES = (".npz", ".npy", ".pt", ".pth")

_NUMBERED = re.compile(r"arr_(\d{1,9})")


@dataclass(frozen=True)
class Sample:
    """One set of inputs and where it came from."""

    label: str
    args: Args
    kwargs: Kwargs


def load_samples(path: Path, positional: Sequence[str], keyword: Sequence[str] = ()) -> list[Sample]:
    """All samples of a file or folder, in the order of their names.

    Args:
        path: what the user gave.
        positional, keyword: the names of the network's inputs, by place and by keyword only.

    Raises:
        UnusableInput: it cannot be read, holds no sample, or its names are not those of the inputs.
    """
    reader = _Reader(positional, keyword)
    with in_words(path):
        if not path.is_dir():
            if not exists(path):
                raise UnusableInput(f"there is no file or folder {path}")
            return reader.file(path)
        try:
            files = sorted(
                entry for entry in path.iterdir() if entry.suffix in SUFFIXES and not entry.is_dir()
            )
        except OSError as error:
            raise UnusableInput(f"{path} cannot be read: {error.strerror or error}") from error
        check_room(sum(regular(file).st_size for file in files), f"the files in {path} take")
        if not files:
            raise UnusableInput(f"{path} holds no inputs: no {', '.join(SUFFIXES)} file lies in it")
        return [sample for file in files for sample in reader.file(file)]


@dataclass(frozen=True)
class _Reader:
    """Reads samples for inputs of these names."""

    positional: Sequence[str]
    keyword: Sequence[str]

    def file(self, path: Path) -> list[Sample]:
        if path.suffix == ".npz":
            arrays = {name: _tensor(array, path, name) for name, array in read_npz(path).items()}
            return [self._named(arrays, path.name)]
        if path.suffix == ".npy":
            return [Sample(path.name, (_tensor(read_npy(path), path, ""),), {})]
        if path.suffix not in (".pt", ".pth"):
            raise UnusableInput(
                f"{path} is no file of inputs: give one of {', '.join(SUFFIXES)}, or a folder of them"
            )
        try:
            held = load_weights_only(path)
        except UntrustedPickle as error:
            raise UntrustedPickle(
                f"{path} holds more than tensors: opening it would unpickle objects, and a "
                f"pickle can run code, so nothing of it was loaded. Save the tensors alone"
            ) from error
        if not isinstance(held, list):
            return [self._sample(held, path.name)]
        if not held:
            raise UnusableInput(f"{path} holds an empty list, so no sample")
        return [self._sample(value, f"{path.name}[{place}]") for place, value in enumerate(held)]

    def _sample(self, held: object, label: str) -> Sample:
        if isinstance(held, torch.Tensor):
            return Sample(label, (held.detach(),), {})
        if isinstance(held, tuple) and held and all(isinstance(value, torch.Tensor) for value in held):
            return Sample(label, held, {})
        if (
            isinstance(held, Mapping)
            and held
            and all(isinstance(value, torch.Tensor) for value in held.values())
        ):
            return self._named({str(name): value for name, value in held.items()}, label)
        raise UnusableInput(
            f"{label} holds a {type(held).__name__} that is no sample: a tensor, a tuple or a dict of "
            f"tensors, or a list of such is"
        )

    def _named(self, arrays: Mapping[str, torch.Tensor], label: str) -> Sample:
        if arrays and all(_NUMBERED.fullmatch(name) for name in arrays):
            in_order = sorted(arrays, key=lambda name: int(name.removeprefix("arr_")))
            return Sample(label, tuple(arrays[name] for name in in_order), {})
        names = (*self.positional, *self.keyword)
        if not arrays or any(name not in names for name in arrays):
            known = ", ".join(names) or "not known"
            listed = f"the arrays {', '.join(map(repr, arrays))}" if arrays else "no arrays"
            raise UnusableInput(
                f"{label} holds {listed}; the network's inputs are {known}. Give the arrays those "
                f"names, or arr_0, arr_1, … in their order"
            )
        leading = list(itertools.takewhile(arrays.__contains__, self.positional))
        rest = {name: value for name, value in arrays.items() if name not in leading}
        return Sample(label, tuple(arrays[name] for name in leading), rest)


def _tensor(array: np.ndarray[Any, Any], path: Path, name: str) -> torch.Tensor:
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=True)
        return torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape))
    except (TypeError, ValueError) as error:
        which = f"the array {name!r} of {path}" if name else str(path)
        raise UnusableInput(f"{which} has the type {array.dtype}, which is no input of a network") from error
