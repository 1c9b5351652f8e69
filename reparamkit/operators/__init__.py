"""What each operator means: one file per family, each a reader from a call to an affine map.

To add an operator, write a function `Call -> Meaning` under `@reader("aten.name.overload")` in the file of
its family, and import that file here.
"""

from reparamkit.algebra.layout import Size
from reparamkit.operators import (
    arithmetic,
    concat,
    convolution,
    identity,
    layout,
    linear,
    normalisation,
    padding,
    pooling,
    products,
    properties,
    splitting,
    transposed,
)
from reparamkit.operators.base import (
    Affine,
    Bordered,
    Call,
    Concat,
    Constant,
    InPassing,
    Meaning,
    Move,
    NotAffine,
    Opaque,
    Part,
    Rescaled,
    Value,
    known,
    read,
    reader,
)

__all__ = [
    "Affine",
    "Bordered",
    "Call",
    "Concat",
    "Constant",
    "InPassing",
    "Meaning",
    "Move",
    "NotAffine",
    "Opaque",
    "Part",
    "Rescaled",
    "Size",
    "Value",
    "arithmetic",
    "concat",
    "convolution",
    "identity",
    "known",
    "layout",
    "linear",
    "normalisation",
    "padding",
    "pooling",
    "products",
    "properties",
    "read",
    "reader",
    "splitting",
    "transposed",
]
