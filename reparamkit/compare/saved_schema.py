"""What the JSON in a file of probes or of reference outputs has to look like, before any of it is used.

The file is written by `reparamkit.compare.saved` and can have been changed by anyone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_LARGEST = 1 << 62
_RANK = 64
_Test = Callable[[Any], object]


def check_probes(meta: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Find out whether this describes probes.

    Args:
        meta: what the JSON held.
        arrays: the other arrays of the file.

    Raises:
        ValueError: it does not; says what is missing.
    """
    _fields(meta, {"seed": _seed, "probes": _each(_record)})
    for entry in meta["probes"]:
        _fields(entry, {"inputs": _each(lambda value: isinstance(value, dict))})
        for part in entry["inputs"]:
            _fields(part, {"array": _text, "keyword": _optional(_text), "dtype": _dtype})
            if part["array"] not in arrays:
                raise ValueError(f"no array {part['array'][:60]!r}")


def check_outputs(meta: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """As `check_probes`, for reference outputs."""
    _fields(
        meta,
        {
            "reference": _text,
            "names": _each(_text),
            "keyword": _each(_text),
            "described": _optional(_each(_description)),
            "seed": _seed,
            "oracle": _text,
            "precision": lambda value: _dtype(value) and bool(getattr(torch, value).is_floating_point),
            "structured": lambda value: isinstance(value, bool),
            "notes": _each(_text),
            "records": _each(lambda value: isinstance(value, dict)),
        },
    )
    if not _text(meta.get("order", "")):  # files of before have none
        raise ValueError("no usable 'order'")
    names = None
    for place, entry in enumerate(meta["records"]):
        _fields(entry, {"probe": _record, "hash": _text, "outputs": _each(_output)})
        own = [output["name"] for output in entry["outputs"]]
        if not own or own != (names or own):
            raise ValueError("records of other outputs")
        names = own
        for number in range(len(own)):
            values = arrays.get(f"output {place}.{number}")
            undecided = arrays.get(f"undecided {place}.{number}")
            if values is None or (undecided is not None and _unlike(undecided, values)):
                raise ValueError(f"no output {place}.{number}")


def _unlike(undecided: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> bool:
    return bool(undecided.dtype != np.bool_) or undecided.shape != values.shape


def _fields(value: Any, tests: Mapping[str, _Test]) -> None:
    if not isinstance(value, dict):
        raise ValueError("no object")
    for name, test in tests.items():
        if name not in value or not test(value[name]):
            raise ValueError(f"no usable {name!r}")


def _holds(value: Any, tests: Mapping[str, _Test]) -> bool:
    _fields(value, tests)
    return True


def _record(value: Any) -> bool:
    return _holds(
        value,
        {
            "name": _text,
            "group": _text,
            "pattern": _text,
            "fixed": lambda entry: isinstance(entry, bool),
            "sizes": lambda entry: isinstance(entry, dict) and all(map(_size, entry.values())),
            "axes": _each(_axis),
        },
    )


def _axis(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    return all(map(_size, value[:2])) and isinstance(value[2], str)


def _output(value: Any) -> bool:
    return _holds(
        value,
        {"name": _text, "dtype": _dtype, "noise": _stored_number, "scale": _stored_number, "finite": _size},
    ) and _stored_number(value.get("order", "0.0"))


def _description(value: Any) -> bool:
    return _holds(value, {"name": _text, "shape": _shape, "dtype": _dtype, "kind": _kind})


def _shape(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > _RANK or not all(map(_size, value)):
        return False
    return math.prod(value) < _LARGEST


def _kind(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[0], str):
        return False
    return all(bound is None or (_number(bound) and math.isfinite(bound)) for bound in value[1:])


def _each(test: _Test) -> _Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _optional(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _stored_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and not math.isnan(float(value)) and float(value) >= 0
    except ValueError:
        return False


def _dtype(value: Any) -> bool:
    return isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)
