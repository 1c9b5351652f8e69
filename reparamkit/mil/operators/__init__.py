"""What each operator of MIL computes: one small file per family.

To add an operator, write its function with the `operator` decorator of `base` into the file of its family,
or put it into a table of `of_tensors` there, and state its definition. Not here, and so refused: control flow
and lists, recurrent layers, random numbers, non-maximum suppression, crop_resize and custom layers.
"""

from reparamkit.mil.operators import (  # noqa: F401 importing a family registers its operators
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
from reparamkit.mil.operators.base import OPERATORS, Call, CannotEvaluate

__all__ = ["OPERATORS", "Call", "CannotEvaluate"]
