"""What each operator of MIL computes: one small file per family.

To add an operator, write its function with the `operator` decorator of `base` into the file of its family,
and state its definition there. Not here, and so refused: control flow and lists, recurrent layers, random
numbers, non-maximum suppression, crop_resize and custom layers.
"""

from reparamkit.mil.operators import (
    activation,
    arrangement,
    binary,
    convolution,
    gathering,
    layout,
    linear,
    normalisation,
    pooling,
    quantised,
    reduction,
    resizing,
    sampling,
    shapes,
    slicing,
    sorting,
    unary,
)
from reparamkit.mil.operators.base import OPERATORS, Call, CannotEvaluate, operator

__all__ = [
    "OPERATORS",
    "Call",
    "CannotEvaluate",
    "activation",
    "arrangement",
    "binary",
    "convolution",
    "gathering",
    "joining",
    "layout",
    "linear",
    "normalisation",
    "operator",
    "padding",
    "pooling",
    "quantised",
    "reduction",
    "resizing",
    "sampling",
    "shapes",
    "slicing",
    "sorting",
    "unary",
]
