"""Outputs of another type than the reference's: which are a difference, and which are only told.

Where two networks are to be exchangeable (a fold and its `.pt2`, `.onnx` and `.pt`) any other type is a
difference. Where they may come from anywhere (`compare` and `check`, a Core ML package):

- floating point of another precision is told; the precision is judged as such (`compare.allowance`);
- an integer of another width or sign is a difference: whoever reads it as the reference's type reads other
  numbers, or an index that has wrapped. One exception: where the candidate's back end has no such type, as
  Core ML has no integers of 64, 16 or 8 bits among its outputs, the one that it has instead is told;
- a boolean for a number, a real for a complex number, and the other way round, are differences.
"""

from __future__ import annotations

import torch

from reparamkit.support.text import dtype_name

_ONLY_INT32 = "Core ML"


def other_type(name: str, wanted: torch.dtype, given: torch.dtype, back_end: str) -> tuple[bool, str]:
    """Whether an output's type is a difference, and what to say of it.

    Args:
        name: of the output.
        wanted, given: the reference's type and the candidate's; they are not the same.
        back_end: the name of the candidate's runner.
    """
    usual = dtype_name(wanted)
    said = f"output {name!r} is {dtype_name(given)} in the candidate and {usual} in the reference"
    if wanted.is_floating_point and given.is_floating_point:
        return False, said
    if wanted.is_complex and given.is_complex:
        return False, said
    if is_integer(wanted) and given is torch.int32 and back_end.startswith(_ONLY_INT32):
        return False, f"{said}: Core ML has no {usual}, and the values are the same"
    return True, said


def is_integer(dtype: torch.dtype) -> bool:
    """Whether it is an integer type; booleans are none."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool)
