"""An ``.npz`` of plain arrays with one more, ``reparamkit``, that holds JSON: what each of the others is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import parse_json

META = "reparamkit"
PROBES, OUTPUTS = "probes 1", "outputs 1"
AS_INTEGERS = {torch.bfloat16: torch.int16}
"""Types that NumPy does not have, and those as which their bytes are written."""


def meta_of(path: Path, arrays: dict[str, np.ndarray[Any, Any]], wanted: str) -> dict[str, Any]:
    """What a file says of itself.

    Args:
        path: the file, to name it.
        arrays: its arrays, that of the JSON among them.
        wanted: the format that it has to have.

    Raises:
        UnusableInput: it cannot be read, or is of another format.
    """
    meta: Any = parse_json(arrays[META].tobytes(), f"{path}: what it says of itself")
    kind = meta.get("format") if isinstance(meta, dict) else None
    if not isinstance(kind, str):
        raise UnusableInput(f"{path} is damaged: what it says of itself cannot be read")
    if kind != wanted:
        what = {PROBES: "a file of probes (--save-inputs)", OUTPUTS: "reference outputs (--save-outputs)"}
        raise UnusableInput(f"{path} is {what.get(kind, f'of the format {kind!r}')}, not {what[wanted]}")
    return dict(meta)


def write(path: Path, meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write arrays and what there is to say of them. Raises `OSError`."""
    whole: dict[str, Any] = {META: np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays}
    with path.open("wb") as file:
        np.savez(file, **whole)


def plain(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor as it is written."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(AS_INTEGERS.get(tensor.dtype, tensor.dtype)).numpy()


def dtype_of(name: object) -> torch.dtype:
    """The type of this name. Raises `ValueError` where torch has none."""
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype
