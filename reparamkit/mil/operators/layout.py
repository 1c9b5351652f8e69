"""Operators that give the same values another shape or order of axes.

    reshape       to `shape`; -1 is what remains. 0 is the length of the axis at that place, counted from the
                  front (with as many axes in `shape` as in x) before iOS 17, from the back since, and then 1
                  where x has no such axis
    reshape_like  to the lengths of axes begins[i] to ends[i] (to the last with end_masks[i]) of
                  ref_tensors[i]
    transpose     axes in the order `perm`
    expand_dims, squeeze  put in and take out axes of length 1; squeeze leaves longer ones as they are
    flatten2d     (product of the axes before `axis`, product of the others), axis 1
    identity      x

Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_transformation.py, iOS16 (reshape_like) and
iOS17 (reshape).
"""

from __future__ import annotations

import math

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, of_tensors, operator

_IOS17 = 7

of_tensors("x", {"identity": lambda x: x})


@operator("reshape", "x shape")
def reshape(call: Call) -> torch.Tensor:
    x, shape = call.tensor("x"), call.integers("shape")
    if 0 in shape and x.numel():
        shape = _inherited(list(x.shape), shape, from_back=call.opset >= _IOS17)
    return x.reshape(shape)


@operator("reshape_like", "x ref_tensors begins ends end_masks")
def reshape_like(call: Call) -> torch.Tensor:
    shape: list[int] = []
    references = call.tensors("ref_tensors")
    parts = zip(call.integers("begins"), call.integers("ends"), call.flags("end_masks"), strict=True)
    for reference, (begin, end, to_last) in zip(references, parts, strict=True):
        shape += reference.shape[begin:] if to_last else reference.shape[begin:end]
    return call.tensor("x").reshape(shape)


@operator("transpose", "x perm")
def transpose(call: Call) -> torch.Tensor:
    return call.tensor("x").permute(call.integers("perm"))


@operator("expand_dims", "x axes")
def expand_dims(call: Call) -> torch.Tensor:
    x, axes = call.tensor("x"), call.integers("axes")
    rank = x.dim() + len(axes)
    for axis in sorted(axis_of(axis, rank) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("squeeze", "x axes")
def squeeze(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return x.squeeze(call.integers("axes", range(x.dim())))


@operator("flatten2d", "x axis")
def flatten2d(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _inherited(own: list[int], shape: list[int], *, from_back: bool) -> list[int]:
    if not from_back:
        if len(own) != len(shape):
            raise CannotEvaluate(f"has 0 in a shape of {len(shape)} axes for an input of {len(own)}")
        return [size or own[place] for place, size in enumerate(shape)]
    missing = len(shape) - len(own)
    return [size or (own[place - missing] if place >= missing else 1) for place, size in enumerate(shape)]
