"""What the JSON in a file of probes or of reference outputs has to look like, before any of it is used.

The file is written by `reparamkit.compare.saved` and can have been changed by anyone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_LARGEST = 1 << 62
_RANK = 64


def check_probes(meta: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Find out whether this describes probes.

    Args:
        meta: what the JSON held.
        arrays: the other arrays of the file.

    Raises:
        ValueError: it does not.
    """
    _require(_fits(meta, _PROBES))
    _require(all(part["array"] in arrays for entry in meta["probes"] for part in entry["inputs"]))


def check_outputs(meta: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """As `check_probes`, for reference outputs."""
    _require(_fits(meta, _OUTPUTS))
    _require(isinstance(meta.get("order", ""), str))  # files of before have none
    names = None
    for place, entry in enumerate(meta["records"]):
        own = [output["name"] for output in entry["outputs"]]
        _require(own and own == (names or own))
        _require(all(_stored_number(output.get("order", "0.0")) for output in entry["outputs"]))
        names = own
        for number in range(len(own)):
            values = arrays.get(f"output {place}.{number}")
            undecided = arrays.get(f"undecided {place}.{number}")
            _require(values is not None and (undecided is None or _alike(undecided, values)))


def _require(fits: object) -> None:
    if not fits:
        raise ValueError("it is not what was written")


def _alike(undecided: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> bool:
    return bool(undecided.dtype == np.bool_) and undecided.shape == values.shape


def _fits(value: Any, form: Any) -> bool:
    """Whether a value has a form.

    A form is a type, a test, a dict of what has to be there and its form, a list with the form of each entry,
    or a tuple of forms of which one is enough.
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            name in value and _fits(value[name], each) for name, each in form.items()
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(each, form[0]) for each in value)
    if isinstance(form, tuple):
        return any(_fits(value, each) for each in form)
    return type(value) is form if isinstance(form, type) else bool(form(value))


def _size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _seed(value: Any) -> bool:
    return type(value) is int and abs(value) < _LARGEST


def _sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_size, value.values()))


def _axis(value: Any) -> bool:
    return _fits(value, list) and len(value) == 3 and _fits(value[:2], [_size]) and _fits(value[2], str)


def _shape(value: Any) -> bool:
    return _fits(value, [_size]) and len(value) <= _RANK and math.prod(value) < _LARGEST


def _kind(value: Any) -> bool:
    return _fits(value, list) and len(value) == 3 and _fits(value[0], str) and _fits(value[1:], [_bound])


def _bound(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def _stored_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and not math.isnan(float(value)) and float(value) >= 0
    except ValueError:
        return False


def _dtype(value: Any) -> bool:
    return isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)


def _floating(value: Any) -> bool:
    return _dtype(value) and bool(getattr(torch, value).is_floating_point)


_RECORD = {"name": str, "group": str, "pattern": str, "fixed": bool, "sizes": _sizes, "axes": [_axis]}
_INPUT = {"array": str, "keyword": (type(None), str), "dtype": _dtype}
_DESCRIPTION = {"name": str, "shape": _shape, "dtype": _dtype, "kind": _kind}
_OUTPUT = {"name": str, "dtype": _dtype, "noise": _stored_number, "scale": _stored_number, "finite": _size}
_PROBES = {"seed": _seed, "probes": [{**_RECORD, "inputs": [_INPUT]}]}
_OUTPUTS = {
    "reference": str,
    "names": [str],
    "keyword": [str],
    "described": (type(None), [_DESCRIPTION]),
    "seed": _seed,
    "oracle": str,
    "precision": _floating,
    "structured": bool,
    "notes": [str],
    "records": [{"probe": _RECORD, "hash": str, "outputs": [_OUTPUT]}],
}
