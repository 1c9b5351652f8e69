"""Concatenation of values along one axis."""

from __future__ import annotations

from reparamkit.operators.base import Call, Concat, Meaning, NotAffine, Value, reader


@reader("aten.cat.default", "aten.concat.default")
def cat(call: Call) -> Meaning:
    """Whether the axis is the channel axis is for the maps that meet here to say."""
    values = call.get("tensors")
    if not all(isinstance(v, Value) for v in values):
        raise NotAffine("it concatenates constants")
    return Concat(tuple(values), call.result.axis(call.get("dim", 0)))
